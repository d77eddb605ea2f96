/** What a runtime writes to the console of its own accord: WebAssembly has no other place for its log. */

/**
 * Take away the lines that match; all others are written as before.
 * @param {RegExp} pattern of the runtime's lines
 * @param {(line: string) => void} keep is given each of them
 */
export function sift(pattern, keep) {
  for (const kind of ["error", "warn", "info", "log", "debug"]) {
    const before = console[kind].bind(console);
    console[kind] = (...words) => {
      const line = words.join(" ");
      if (pattern.test(line)) keep(line);
      else before(...words);
    };
  }
}
