/** The bundle that this page lies in: bundle.json, and files by their paths, each fetched once and checked. */

import {read} from "./arrays.js";

export class Bundle {
  #files = new Map();

  /** @param {object} told what bundle.json says */
  constructor(told) {
    this.told = told;
    this.artifacts = told.artifacts;
  }

  static async open() {
    const answer = await fetch("bundle.json", {cache: "no-cache"});
    if (!answer.ok) throw new Error(`bundle.json cannot be read: the server answers ${answer.status}.`);
    return new Bundle(await answer.json());
  }

  /** The bytes of a file. Rejects where they are not those that bundle.json lists. */
  file(path) {
    if (!this.#files.has(path)) this.#files.set(path, this.#fetched(path));
    return this.#files.get(path);
  }

  /** The golden cases of an artifact: [{name, inputs, outputs}], arrays by name. */
  async cases(artifact) {
    const bytes = await this.file(artifact.golden.path);
    const side = (arrays) =>
      Object.fromEntries(Object.entries(arrays).map(([name, entry]) => [name, {...entry, ...read(entry, bytes)}]));
    return artifact.golden.cases.map(({name, inputs, outputs}) => ({name, inputs: side(inputs), outputs: side(outputs)}));
  }

  async #fetched(path) {
    const listed = this.told.files[path];
    if (!listed) throw new Error(`${path} is not listed in bundle.json.`);
    const answer = await fetch(path, {cache: "no-cache"});
    if (!answer.ok) throw new Error(`${path} cannot be read: the server answers ${answer.status}.`);
    const bytes = await answer.arrayBuffer();
    if (bytes.byteLength !== listed.bytes)
      throw new Error(`${path} was changed: it has ${bytes.byteLength} bytes, bundle.json lists ${listed.bytes}.`);
    if (crypto.subtle && (await sha256(bytes)) !== listed.sha256)
      throw new Error(`${path} was changed: its sha256 is not the one that bundle.json lists.`);
    return bytes;
  }
}

/** Whether hashes can be checked: browsers have SHA-256 in secure contexts alone (https, or this machine itself). */
export const hashes = () => Boolean(crypto.subtle);

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
