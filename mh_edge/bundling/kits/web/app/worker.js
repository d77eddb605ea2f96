/* A worker holds one or two sessions and does what page it belongs to asks for. It is no module, as LiteRT.js loads
 * its own code by importScripts, which modules lack. */
"use strict";

const sessions = [];
let feeds = [];

const steps = {
  /** Open a session beside those that are open -> what it is. */
  async open(what) {
    const {open} = await import(what.format === "onnx" ? "./ort.js" : "./litert.js");
    const start = performance.now();
    const session = await open(what);
    sessions.push(session);
    const {runtime, threads, placement} = session;
    return {runtime, threads, placement, load_ms: performance.now() - start};
  },

  /** Run the first session -> its outputs, and how long it took. */
  async run({inputs}) {
    const [session] = sessions;
    const prepared = session.prepare(inputs);
    const start = performance.now();
    const outputs = await session.run(prepared);
    return {ms: performance.now() - start, outputs: session.read(outputs)};
  },

  /** Time all sessions in turn on the same inputs. */
  async time({inputs, ...plan}) {
    const {time} = await import("./timing.js");
    feeds = sessions.map((session) => session.prepare(inputs));
    return time(sessions.map((session, which) => () => session.run(feeds[which])), plan);
  },

  async tick() {
    return (await import("./timing.js")).tick();
  },
};

self.onmessage = async ({data: {id, step, what}}) => {
  try {
    self.postMessage({id, answer: await steps[step](what)});
  } catch (error) {
    self.postMessage({id, error: String(error?.message ?? error)});
  }
};
