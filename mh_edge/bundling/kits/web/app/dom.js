/** Elements in a line: e("td", {class: "n"}, "3 ms", e("small", {}, "p50")). */

const SVG = "http://www.w3.org/2000/svg";

const element = (made, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.flat(Infinity).filter((one) => one !== null && one !== ""));
  return made;
};

export const e = (name, attributes = {}, ...children) => element(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => element(document.createElementNS(SVG, name), attributes, children);

/** Milliseconds in two or three digits and the unit that suits them. */
export function duration(ms) {
  const [value, unit] = ms < 1 ? [ms * 1000, "µs"] : ms < 1000 ? [ms, "ms"] : [ms / 1000, "s"];
  return `${Number(value.toPrecision(value >= 10 ? 3 : 2))} ${unit}`;
}

/** An error in two digits: 0.0054, 4.1e-6. */
export const small = (error) => (error && error < 1e-3 ? error.toExponential(1) : String(Number(error.toPrecision(2))));
