// Faces in view over the last minutes: female, male and unsure on top of each other.

export const LABELS = ["female", "male", "unsure"];
const SPAN_SECONDS = 300;
const GAP_SECONDS = 3; // longer than that without a sample is left blank
const LEAST_TOP = 4;
const LABEL_WIDTH = 52;
const EDGE = { left: 24, right: 8, top: 8, bottom: 20 };

export class Chart {
  constructor(box) {
    this.canvas = box.querySelector("canvas");
    this.tip = box.querySelector("p");
    this.samples = []; // [seconds, female, male, unsure], oldest first
    this.now = 0;
    this.pointer = null; // where the reader points, in CSS pixels
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    for (const kind of ["pointermove", "pointerdown"]) {
      this.canvas.addEventListener(kind, (event) => this.point(event.offsetX));
    }
    this.canvas.addEventListener("pointerleave", () => this.point(null));
  }

  /** Begins anew: the server has been started again. */
  clear() {
    this.samples = [];
  }

  /** Takes further samples and the time that is now, in seconds of the server's own clock. */
  add(samples, now) {
    this.samples.push(...samples);
    this.now = now;
    const old = this.samples.findIndex((sample) => sample[0] >= now - SPAN_SECONDS - GAP_SECONDS);
    this.samples.splice(0, old === -1 ? this.samples.length : old);
    this.draw();
  }

  point(x) {
    this.pointer = x;
    this.draw();
  }

  draw() {
    const { width, height, scale, pen } = this.prepare();
    if (!width) return;
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const area = {
      left: EDGE.left,
      right: width - EDGE.right,
      top: EDGE.top,
      bottom: height - EDGE.bottom,
    };
    const top = roundUp(Math.max(LEAST_TOP, ...this.samples.map((s) => s[1] + s[2] + s[3])));
    // On whole pixels, so that neighbours leave no seams.
    const x = (seconds) => {
      const at = area.right - ((this.now - seconds) / SPAN_SECONDS) * (area.right - area.left);
      return Math.max(area.left, Math.round(at * scale) / scale);
    };
    const y = (count) => area.bottom - (count / top) * (area.bottom - area.top);
    pen.font = `12px ${style.fontFamily}`;
    this.drawGrid(pen, area, top, y, colour);
    this.drawAreas(pen, x, y, colour);
    this.drawPointer(pen, area, x, colour);
  }

  prepare() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    return { width, height, scale, pen };
  }

  drawGrid(pen, area, top, y, colour) {
    pen.fillStyle = colour("soft");
    pen.strokeStyle = colour("line");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const count of [0, top / 2, top]) {
      const at = Math.round(y(count)) + 0.5;
      pen.beginPath();
      pen.moveTo(area.left, at);
      pen.lineTo(area.right, at);
      pen.stroke();
      pen.fillText(String(count), area.left - 7, at);
    }
    pen.textBaseline = "alphabetic";
    const base = area.bottom + 16;
    const minutes = SPAN_SECONDS / 60;
    const spacing = (area.right - area.left) / minutes;
    const step = spacing < LABEL_WIDTH ? 2 : 1;
    for (let ago = 0; ago <= minutes; ago += step) {
      pen.textAlign = ago === 0 ? "right" : ago === minutes ? "left" : "center";
      pen.fillText(ago === 0 ? "now" : `${ago} min`, area.right - ago * spacing, base);
    }
  }

  drawAreas(pen, x, y, colour) {
    const bars = this.samples.map((sample, i) => {
      const next = this.samples[i + 1];
      const end = next ? next[0] : this.now;
      const until = end - sample[0] > GAP_SECONDS ? sample[0] + 1 : end;
      return { from: x(sample[0]), to: x(until), counts: sample.slice(1) };
    });
    LABELS.forEach((label, level) => {
      pen.fillStyle = colour(label);
      pen.beginPath();
      for (const { from, to, counts } of bars) {
        const below = counts.slice(0, level).reduce((sum, count) => sum + count, 0);
        if (!counts[level] || to <= from) continue;
        const high = y(below + counts[level]);
        pen.rect(from, high, to - from, y(below) - high);
      }
      pen.fill();
    });
  }

  drawPointer(pen, area, x, colour) {
    const sample = this.pointer === null ? null : nearest(this.samples, x, this.pointer);
    this.tip.hidden = !sample;
    if (!sample) return;
    const at = Math.round(x(sample[0])) + 0.5;
    pen.strokeStyle = colour("ink");
    pen.beginPath();
    pen.moveTo(at, area.top);
    pen.lineTo(at, area.bottom);
    pen.stroke();
    const counts = LABELS.map((label, i) => `${sample[i + 1]} ${label}`).join(" · ");
    this.tip.textContent = `${timeAgo(this.now - sample[0])}: ${counts}`;
    const room = this.canvas.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, at - this.tip.offsetWidth / 2))}px`;
  }
}

function nearest(samples, x, pointer) {
  let best = null;
  for (const sample of samples) {
    const distance = Math.abs(x(sample[0]) - pointer);
    if (best === null || distance <= best.distance) best = { sample, distance };
  }
  return best && best.distance < 24 ? best.sample : null;
}

/** Rounds up to an even number of few digits, which can be halved for the grid. */
function roundUp(value) {
  const unit = 2 * 10 ** Math.max(0, Math.floor(Math.log10(value / 2)));
  return Math.ceil(value / unit) * unit;
}

function timeAgo(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  return minutes ? `${minutes}:${String(whole % 60).padStart(2, "0")} min ago` : `${whole} s ago`;
}
