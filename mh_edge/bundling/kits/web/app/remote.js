/** A worker of one's own: questions and answers, and an end. */

/* Of a runtime's message, so many characters are shown. */
const LONGEST = 500;

export class Remote {
  #worker = new Worker(new URL("./worker.js", import.meta.url));
  #waiting = new Map();
  #count = 0;

  constructor() {
    this.#worker.onmessage = ({data: {id, answer, error}}) => {
      const {resolve, reject} = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new Error(short(error)));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const why = new Error(short(event.message || "The worker ended: the browser does not say why."));
      for (const {reject} of this.#waiting.values()) reject(why);
      this.#waiting.clear();
    };
  }

  /** What a step of worker.js answers. */
  ask(step, what) {
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#count, {resolve, reject});
      this.#worker.postMessage({id: this.#count, step, what});
    });
  }

  close() {
    this.#worker.terminate();
  }
}

const short = (message) => {
  const plain = message.replace(/\s+/g, " ").trim();
  return plain.length > LONGEST ? `${plain.slice(0, LONGEST)} ...` : plain;
};
