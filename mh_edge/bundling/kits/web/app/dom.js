/** Elements in a line: e("td", {class: "n"}, "3 ms", e("small", {}, "p50")). */

const SVG = "http://www.w3.org/2000/svg";

const element = (made, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.flat().filter((one) => one !== null && one !== ""));
  return made;
};

export const e = (name, attributes = {}, ...children) => element(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => element(document.createElementNS(SVG, name), attributes, children);

/** Milliseconds in three digits and the unit that suits them. */
export function duration(ms) {
  const [value, unit] = ms < 1 ? [ms * 1000, "µs"] : ms < 1000 ? [ms, "ms"] : [ms / 1000, "s"];
  return `${value >= 100 ? Math.round(value) : value.toPrecision(value >= 10 ? 3 : 2)} ${unit}`;
}
