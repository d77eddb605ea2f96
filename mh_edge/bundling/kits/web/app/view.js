/** What the page shows of what it found. */

import {chart} from "./chart.js";
import {duration, e, small} from "./dom.js";

/* In a note of bundle.json that takes from what right numbers mean. */
const NO_PROOF = "proves nothing";

const place = (id) => document.getElementById(id);

/** Say what is being done, or that it failed. */
export function step(words, kind = "waiting") {
  place("verdict").className = `verdict ${kind}`;
  place("status").textContent = kind === "failed" ? "✕ It does not run here" : kind === "waiting" ? "Working" : "✓ Done";
  place("words").textContent = words;
}

export function show({bundle, rows, environment, done}) {
  const seen = rows.filter((row) => "right" in row);
  if (done) verdict(seen, bundle.told.notes);
  const timed = seen.filter((row) => row.latency);
  place("main").replaceChildren(
    ...bundle.artifacts.map((artifact) => section(artifact, seen.filter((row) => row.artifact === artifact))),
    ...(timed.length ? [latency(timed)] : []),
    about(bundle, environment),
  );
}

/** Whether a row that is here is right in every case, and came through to its end. */
export const fine = (row) => row.right && !row.error;

function verdict(rows, notes) {
  const there = rows.filter((row) => !row.absent), wrong = there.filter((row) => !fine(row));
  if (!there.length) return step("Nothing was run: no model here, or no backend for it.", "failed");
  step(wrong.length ? wrong.map((row) => `${row.artifact.name} on ${row.label}: ${why(row)}`).join(" ")
    : [`Right on all ${there.length} backends that are here, in every golden case, twice.`,
      ...notes.filter((note) => note.includes(NO_PROOF))].join(" "), wrong.length ? "failed" : "passed");
  if (wrong.length)
    place("status").textContent = `✕ ${wrong.length} of ${there.length} backends that are here ${wrong.length > 1 ? "fail" : "fails"}`;
}

const why = (row) => row.error || sentence(row.cases.find((one) => !one.right));
const sentence = (one) => (one ? `${one.name}: ${one.why}.` : "not all golden cases were run.");

function section(artifact, rows) {
  const heads = ["backend", "golden cases", "where it ran", "opening", "first call", "p50", "p90"];
  return e("section", {},
    e("h2", {}, artifact.name),
    e("p", {class: "lead"}, `${artifact.golden.cases.length} golden cases, each run twice; the numbers are those of `
      + `${artifact.golden.reference}. ${artifact.details.runtime} runs them here.`),
    e("table", {class: "summary"},
      e("thead", {}, e("tr", {}, heads.map((head) => e("th", {scope: "col"}, head)))),
      e("tbody", {}, rows.map((row) => line(row, heads)))),
    rows.filter((row) => row.cases?.length).map((row) =>
      e("details", {}, e("summary", {}, `Every case on ${row.label}`), cases(row))));
}

function line(row, heads) {
  const cell = (at, ...children) => e("td", {"data-label": heads[at], class: at > 2 ? "n" : null}, ...children);
  const backend = e("th", {scope: "row"}, e("b", {}, row.label), row.threads > 1 ? ` (${row.threads})` : "",
    row.adapter ? e("small", {}, row.adapter) : "");
  if (row.absent) return e("tr", {class: "absent"}, backend, e("td", {colspan: heads.length - 1, class: "wide"}, `Not here. ${row.absent}`));
  if (row.error && !row.cases.length)
    return e("tr", {}, backend, e("td", {colspan: heads.length - 1, class: "wide bad"}, "✕ ", row.error));
  const [first] = row.openings ?? [];
  return e("tr", {}, backend, cell(1, parity(row)), cell(2, ...placed(row)),
    cell(3, first ? duration(first.load_ms) : "–"), cell(4, first ? duration(first.first_ms) : "–"),
    cell(5, row.latency ? e("b", {}, duration(row.latency.p50)) : "–"),
    cell(6, row.latency && row.latency.p90 !== null ? duration(row.latency.p90) : "–"));
}

function parity(row) {
  if (row.error) return e("span", {class: "bad"}, "✕ ", row.error);
  if (!row.cases.length) return e("span", {class: "bad"}, "✕ There is no golden case.");
  const worst = row.cases.reduce((a, b) => (b.share > a.share ? b : a));
  const right = row.cases.filter((one) => one.right).length;
  return e("span", {class: row.right ? "good" : "bad"}, `${row.right ? "✓" : "✕"} ${right} of ${row.cases.length} right`,
    e("small", {}, worst.right ? `worst error ${small(worst.error)}, allowed ${small(worst.allowed)}` : sentence(worst)));
}

function placed({placement}) {
  if (!placement) return [e("span", {class: "warn"}, "The runtime did not tell.")];
  const {whole, nodes, on_device: here, fallbacks} = placement;
  const words = whole ? "all of it here" : here === 0 ? "none of it here: on the CPU" : `partly on the CPU${nodes ? `: ${nodes - here} of ${nodes} nodes` : ""}`;
  const away = fallbacks.map((one) => `${one.op}${one.count > 1 ? ` × ${one.count}` : ""}`).join(", ");
  return [e("span", {class: whole ? "" : "warn"}, words), e("small", {}, away ? `${away}. ${placement.proof}` : placement.proof)];
}

const cases = (row) => e("table", {class: "cases"},
  e("thead", {}, e("tr", {}, ["case", "run", "largest error", "allowed", "where"].map((head) => e("th", {scope: "col"}, head)))),
  e("tbody", {}, row.cases.map((one) => e("tr", {},
    e("th", {scope: "row", class: one.right ? "" : "bad"}, `${one.right ? "✓" : "✕"} ${one.name}`), e("td", {}, String(one.time)),
    one.why ? e("td", {colspan: "3", class: "bad"}, one.why)
      : [small(one.error), small(one.allowed), one.where].map((text) => e("td", {}, text))))));

function latency(rows) {
  return e("section", {}, e("h2", {}, "Latency"),
    e("p", {class: "lead"}, "Height: how often a time was that long, up to p99 (smoothed); slower is further right, on a "
      + "logarithmic axis. The tall line is p50, the short one p90, which only single calls have. Each backend is opened afresh twice, in turn with the "
      + "others, and warmed up before it is timed; a call gives the inputs of the first golden case and takes the outputs. "
      + "Calls too short for the browser's clock are timed several at a time: each number is their mean."),
    chart(rows));
}

function about({told}, environment) {
  const clock = environment.cross_origin_isolated ? "fine, as the page is cross-origin isolated; of quick models, means of several calls are shown"
    : "coarse (0.1 ms or more), as the page is not cross-origin isolated: of quick models, means of several calls are shown";
  const facts = {
    Browser: environment.user_agent,
    Processors: `${environment.hardware_concurrency ?? "unknown"}, as the browser tells`,
    Clock: clock,
    Files: environment.hashes_checked ? "models, golden cases and WebAssembly have the sha256 that bundle.json lists"
      : "of the right sizes; sha256 is not to be had here, as this is no secure context (https or localhost)",
    Notes: told.notes.join(" "),
  };
  return e("section", {}, e("h2", {}, "What this is"),
    e("dl", {}, Object.entries(facts).filter(([, fact]) => fact).map(([name, fact]) => [e("dt", {}, name), e("dd", {}, fact)])));
}
