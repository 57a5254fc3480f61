// Live video: one stream of JPEG parts for all sources, so that many tiles need one connection.

const PAUSE_MS = 1000;

/** Reads the stream for ever and hands on each picture; rests while nobody can see the page. */
export async function watch(onPicture) {
  for (;;) {
    await visible();
    const stop = new AbortController();
    const hide = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const response = await fetch("video", { signal: stop.signal, cache: "no-store" });
      if (response.ok) await readParts(response.body.getReader(), onPicture);
    } catch {
      // The server has gone, or the page is hidden; both are waited out.
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
  }).then(visible);
}

/** Takes a multipart stream apart: heads end with an empty line and tell length and source. */
async function readParts(reader, onPicture) {
  let head = "";
  let body = null; // being filled
  let filled = 0;
  let source = 0;
  for (;;) {
    const { value: chunk, done } = await reader.read();
    if (done) return;
    let at = 0;
    while (at < chunk.length) {
      if (body === null) {
        head += String.fromCharCode(chunk[at++]);
        if (!head.endsWith("\r\n\r\n")) continue;
        source = Number(/X-Source: (\d+)/i.exec(head)[1]);
        body = new Uint8Array(Number(/Content-Length: (\d+)/i.exec(head)[1]));
        filled = 0;
        head = "";
      } else {
        const piece = chunk.subarray(at, at + body.length - filled);
        body.set(piece, filled);
        filled += piece.length;
        at += piece.length;
        if (filled === body.length) {
          onPicture(source, body);
          body = null;
        }
      }
    }
  }
}

/** Paints the newest picture of one source; those that come while one is decoded are skipped. */
export class View {
  constructor(canvas, onSize) {
    this.canvas = canvas;
    this.context = canvas.getContext("bitmaprenderer");
    this.onSize = onSize;
    this.waiting = null;
    this.busy = false;
  }

  async show(jpeg) {
    this.waiting = jpeg;
    if (this.busy) return;
    this.busy = true;
    while (this.waiting !== null) {
      const blob = new Blob([this.waiting], { type: "image/jpeg" });
      this.waiting = null;
      try {
        this.paint(await createImageBitmap(blob));
      } catch {
        // A damaged picture; the next one is on its way.
      }
    }
    this.busy = false;
  }

  paint(bitmap) {
    const { width, height } = bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.onSize(width, height);
    }
    this.context.transferFromImageBitmap(bitmap);
  }
}
