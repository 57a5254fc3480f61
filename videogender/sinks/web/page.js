// The page of a live run: asks for its numbers once a second, shows its video, sends its controls.

import { Chart, LABELS } from "./chart.js";
import { View, watch } from "./video.js";
import { tellAreas } from "./areas.js";

const PERIOD_MS = 1000;
const PATIENCE_MS = 5000;
const SEND_EVERY_MS = 150; // while the slider is dragged
const MOST_THRESHOLD = 0.95; // of the slider; above it hardly any face is left
const HOLD_MS = 2000; // how long the slider stays where the reader has put it

const find = (selector) => document.querySelector(selector);
const slider = find("#threshold input");
const sliderText = find("#threshold output");
const recordButton = find("#record");
const notice = find("#notice");

// The first visit's address holds the token, which lives in a cookie from then on.
if (location.search) history.replaceState(null, "", location.pathname);

class Tile {
  constructor(count) {
    const article = find("#tile").content.cloneNode(true).querySelector("article");
    this.element = article;
    this.frame = article.querySelector(".view");
    this.cover = article.querySelector(".cover");
    this.chart = new Chart(article.querySelector(".chart"));
    this.chartCanvas = article.querySelector(".chart canvas");
    this.seen = false; // a picture has come
    this.view = new View(article.querySelector(".view canvas"), (width, height) => {
      this.seen = true;
      this.cover.hidden = this.element.dataset.state === "running";
      // Several tiles keep one shape, so that rows stay straight.
      if (count === 1) this.frame.style.setProperty("--shape", `${width} / ${height}`);
    });
    const full = article.querySelector(".full");
    full.hidden = !document.fullscreenEnabled;
    full.addEventListener("click", () => this.toggleFull());
    this.frame.addEventListener("dblclick", () => this.toggleFull());
  }

  toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (document.fullscreenEnabled) this.frame.requestFullscreen();
  }

  tell(stats) {
    const set = (selector, text) => {
      this.element.querySelector(selector).textContent = text;
    };
    set("h2", stats.source);
    this.element.querySelector("h2").title = stats.source;
    set(".badge", stats.state);
    this.element.dataset.state = stats.state;
    const running = stats.state === "running";
    this.cover.hidden = running && this.seen;
    this.cover.textContent =
      stats.message || (running || stats.state === "starting" ? "waiting for a picture" : stats.state);
    for (const label of LABELS) set(`[data-label="${label}"] dd`, stats[label]);
    tellAreas(this.element.querySelector(".areas"), stats.zones);
    const told = {
      fps: `${number(stats.fps_in)} · ${number(stats.fps_out)}`,
      latency: `${number(stats.latency_ms_p50, 0)} · ${number(stats.latency_ms_p95, 0)} ms`,
      dropped: whole(stats.dropped),
      frames: whole(stats.frames),
      reconnects: whole(stats.reconnects),
      device: stats.device,
    };
    for (const [name, text] of Object.entries(told)) set(`[data-of="${name}"]`, text);
    const now = LABELS.map((label) => `${stats[label]} ${label}`).join(", ");
    this.chartCanvas.setAttribute("aria-label", `Faces over the last five minutes. Now: ${now}.`);
  }
}

const number = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits));
const whole = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");

let tiles = [];
let newest = -1; // the time of the last sample that the charts have
let uptime = 0;
let heldUntil = 0;

function showTiles(sources) {
  if (tiles.length === sources.length) return;
  tiles = sources.map(() => new Tile(sources.length));
  find("#tiles").dataset.count = sources.length;
  find("#tiles").replaceChildren(...tiles.map((tile) => tile.element));
}

function tell(told) {
  if (told.uptime_s < uptime) {
    newest = -1; // the server was started again: the answer may lack what came before
    tiles.forEach((tile) => tile.chart.clear());
  }
  uptime = told.uptime_s;
  showTiles(told.sources);
  const fresh = told.history.filter((sample) => sample[0] > newest); // answers can overlap
  told.sources.forEach((stats, i) => {
    tiles[i].tell(stats);
    tiles[i].chart.add(fresh.map((sample) => [sample[0], ...sample[i + 1]]), uptime);
  });
  if (fresh.length) newest = fresh[fresh.length - 1][0];
  tellSummary(told);
  tellControls(told);
}

function tellSummary({ sources, recording, recording_trouble: trouble }) {
  const total = (name) => sources.reduce((sum, stats) => sum + stats[name], 0);
  const faces = total("faces");
  const parts = [`${faces} ${faces === 1 ? "face" : "faces"} in view`];
  if (sources.length > 1) {
    parts[0] += `: ${LABELS.map((label) => `${total(label)} ${label}`).join(", ")}`;
    const running = sources.filter((stats) => stats.state === "running").length;
    if (running < sources.length) parts.push(`${running} of ${sources.length} sources running`);
  }
  if (recording) parts.push("recording");
  if (trouble) parts.push(`recording stopped: ${trouble}`);
  find("#summary").textContent = parts.join(" · ");
}

function tellControls(told) {
  find("#controls").hidden = false;
  slider.max = Math.min(MOST_THRESHOLD, told.most_threshold);
  if (Date.now() > heldUntil) {
    slider.value = told.face_threshold;
    sliderText.textContent = told.face_threshold.toFixed(2);
  }
  recordButton.disabled = !told.can_record;
  recordButton.title = told.can_record ? "" : "Start with --record FILE to record";
  recordButton.classList.toggle("on", told.recording);
  recordButton.setAttribute("aria-label", told.recording ? "Stop recording" : "Record");
  recordButton.querySelector("span").textContent = told.recording ? "Stop" : "Record";
}

function complain(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

/** Asks the server; a body makes it a change. Throws an Error whose message can be shown. */
async function ask(path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE_MS);
  const change = { method: "POST", headers: { "content-type": "application/json" }, body };
  let response;
  let told;
  try {
    response = await fetch(path, { ...(body && change), signal: stop.signal, cache: "no-store" });
    told = await response.text();
  } catch {
    throw new Error("videogender does not answer; it may have ended. Trying again …");
  } finally {
    clearTimeout(timer);
  }
  if (response.ok) return JSON.parse(told);
  const isJson = (response.headers.get("content-type") || "").startsWith("application/json");
  throw new Error(isJson ? JSON.parse(told).error : told);
}

async function refresh() {
  try {
    tell(await ask(`api/stats?since=${newest}`));
    if (document.body.classList.contains("lost")) complain("");
    document.body.classList.remove("lost");
  } catch (error) {
    document.body.classList.add("lost");
    complain(error.message);
  }
}

async function change(path, value) {
  try {
    await ask(path, JSON.stringify({ value }));
    complain("");
  } catch (error) {
    complain(error.message);
  }
  await refresh();
}

let sending = null;
slider.addEventListener("input", () => {
  heldUntil = Date.now() + HOLD_MS;
  sliderText.textContent = Number(slider.value).toFixed(2);
  sending ??= setTimeout(() => {
    sending = null;
    change("api/face_threshold", Number(slider.value));
  }, SEND_EVERY_MS);
});
recordButton.addEventListener("click", () => {
  change("api/recording", !recordButton.classList.contains("on"));
});

async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
  }
}

run();
watch((source, jpeg) => tiles[source]?.view.show(jpeg));
