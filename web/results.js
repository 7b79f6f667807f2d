// Builds the parts of the page that show data. Text is only ever text: nothing here parses markup.

export const NAMES = { meaning: "By meaning", words: "By words", both: "By both" };

// An element with attributes and children; a child that is a string becomes text.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

export const number = (value) => Number(value).toLocaleString("en-US");
export const counted = (count, unit) => `${number(count)} ${unit}${count === 1 ? "" : "s"}`;

export function time(seconds) {
  const milliseconds = seconds * 1000;
  if (milliseconds >= 1000) return `${seconds.toFixed(2)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

// What the user can do, as code if it is a statement or a command. Sentences stay sentences.
function advice(hint) {
  const code = /^(select|grant|create|call|alter|set)\b/i.test(hint) ? [hint, ""] : null;
  const parts = code ? ["", ...code] : hint.split(/((?:[A-Z]+=\S+ )?make [a-z-]+|(?:SELECT|CALL|ALTER|CREATE|DROP|GRANT) .*$)/);
  return parts.map((part, place) => (place % 2 ? element("code", {}, part) : part));
}

export function problem(given, retry) {
  return [
    element("p", {}, element("strong", {}, given.message)),
    given.detail && element("p", {}, given.detail),
    given.hint && element("p", {}, ...advice(given.hint)),
    retry && element("button", { type: "button", onclick: retry }, "Try again"),
  ].filter(Boolean);
}

function facts(pairs, name) {
  return element("dl", { class: name },
    ...pairs.filter(([, value]) => value != null && value !== "").map(([term, value]) =>
      element("div", {}, element("dt", {}, term), element("dd", { dir: "auto" }, value))));
}

function text(segments, place, texts) {
  // Of several text columns the first is a title more often than not.
  const made = element("p", { class: place === 0 && texts.length > 1 ? "text first" : "text", dir: "auto" },
    ...segments.map((segment, odd) => (odd % 2 ? element("mark", {}, segment) : segment)));
  const length = segments.reduce((sum, segment) => sum + segment.length, 0);
  if (length < 280) return [made];
  made.classList.add("clipped");
  const more = element("button", { type: "button", class: "more", "aria-expanded": "false", onclick: () => {
    const open = made.classList.toggle("clipped");
    more.setAttribute("aria-expanded", String(!open));
    more.textContent = open ? "Show all" : "Show less";
  } }, "Show all");
  return [made, more];
}

function row(part, found, place, threshold) {
  const below = part !== "meaning" && threshold != null && (found.similarity == null || found.similarity < threshold);
  const ranks = part === "meaning" ? [] : [
    ["words", found.full_text_rank && `no. ${found.full_text_rank}`],
    part === "both" ? ["meaning", found.semantic_rank && `no. ${found.semantic_rank}`] : ["", null],
    part === "both" ? ["score", found.score.toFixed(4)] : ["", null],
  ];
  return element("li", { class: below ? "row below" : "row" },
    element("span", { class: "rank", "aria-hidden": "true" }, String(place)),
    element("div", {},
      ...found.content.flatMap(text),
      facts([
        ["similarity", found.similarity == null ? "none" : found.similarity.toFixed(3) + (below ? ", below" : "")],
        ...ranks,
        ["matched", found.words.join(", ")],
      ], "measures"),
      found.fields.length > 0 && facts(found.fields, "columns")));
}

// The list of one kind of search: its rows, or its error.
export function list(part, answer, terms, threshold, documents) {
  const title = `list-${part}`;
  const count = answer.rows ? counted(answer.rows.length, "row") : "";
  const section = element("section", { class: "list", "aria-labelledby": title, "data-part": part },
    element("header", {}, element("h3", { id: title }, NAMES[part]),
      element("span", { class: "note" }, answer.rows ? `${count} · ${time(answer.seconds)}` : "")));
  if (answer.problem) {
    section.append(element("div", { class: "problem" }, ...problem(answer.problem)));
    return section;
  }
  section.append(element("p", { class: "note" }, caption(part, terms, threshold, documents)));
  if (!answer.rows.length) section.append(element("p", { class: "nothing" }, nothing(part, threshold)));
  else section.append(element("ol", {}, ...answer.rows.map((found, place) => row(part, found, place + 1, threshold))));
  return section;
}

function caption(part, terms, threshold, documents) {
  const rows = documents ? "The nearest documents, each by its best chunk" : "The nearest rows";
  if (part === "meaning") return threshold == null ? `${rows}.` : `${rows}, from ${threshold.toFixed(3)} on.`;
  if (part === "both") return "The ranks of both lists, added up.";
  if (!terms) return "The rows that have words of the search.";
  const parts = [];
  if (terms.counted.length) parts.push(`Looked for: ${terms.counted.join(", ")}.`);
  if (terms.common.length) parts.push(`In more than 200 rows: ${terms.common.join(", ")}.`);
  return parts.join(" ") || "The search has no word that counts.";
}

function nothing(part, threshold) {
  if (part === "words") return "No row has these words.";
  if (part === "meaning" && threshold != null) return `No row has a similarity of ${threshold.toFixed(3)} or more.`;
  return "No row was found.";
}

export function statement(part, answer, copied) {
  const button = element("button", { type: "button", "aria-label": `Copy the statement of the search ${NAMES[part].toLowerCase()}` }, "Copy");
  button.addEventListener("click", () => copied(answer.statement, button));
  return element("figure", { "data-part": part },
    element("figcaption", {}, element("b", {}, NAMES[part]), time(answer.seconds), button),
    element("pre", { tabindex: "0", "aria-label": `The statement of the search ${NAMES[part].toLowerCase()}` },
      element("code", {}, answer.statement)));
}

export function factList(pairs) {
  const made = element("dl", { class: "facts" });
  for (const [term, value] of pairs) {
    if (value == null) continue;
    made.append(element("dt", {}, term), element("dd", {}, value));
  }
  return made;
}

const YES = { t: "yes", f: "no" };

export function status(columns) {
  return columns.flatMap((column) => [
    columns.length > 1 && element("h3", {}, column.embedding),
    factList([
      ["state", column.state], ["rows", column.rows && number(column.rows)],
      ["with embedding", column.embedded && number(column.embedded)],
      ["missing", column.missing && number(column.missing)], ["stale", column.stale && number(column.stale)],
      ["index", YES[column.index_present]], ["trigger enabled", YES[column.trigger_enabled]],
      ["filled with", column.filled_with && column.filled_with.slice(0, 12)],
      ["model now", column.loaded && column.loaded.slice(0, 12)],
    ]),
    column.hints.length
      ? element("ul", { class: "hints" }, ...column.hints.map((hint) => element("li", {}, ...advice(hint))))
      : element("p", { class: "note" }, "Nothing is to be done."),
  ]).filter(Boolean);
}

function fact(name, value) {
  if (name === "fingerprint") return value.slice(0, 12);
  if (name === "load_seconds") return time(Number(value));
  if (/^0\.\d{7,}$/.test(value)) return Number(value).toFixed(6);
  return YES[value] ?? value;
}

// The columns of embed_model() or embed_selftest().
export function model(values) {
  return factList(values.filter(([, value]) => value).map(([name, value]) => [name.replaceAll("_", " "), fact(name, value)]));
}

// -- The histogram --

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Bars by a square root, because the rows near the search are few among many.
export function draw(svg, histogram, axis, threshold, similarities) {
  const width = 1000, height = 72, base = 62;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const at = (similarity) => (width * (similarity - axis.low)) / (axis.high - axis.low);
  const shapes = [shape("line", { class: "base", x1: 0, x2: width, y1: base, y2: base, "vector-effect": "non-scaling-stroke" })];
  const bins = histogram ? bars(histogram, axis) : [];
  const highest = Math.sqrt(Math.max(1, ...bins.map((bin) => bin.count)));
  for (const bin of bins) {
    if (!bin.count) continue;
    const tall = Math.max(2, (base * Math.sqrt(bin.count)) / highest);
    const above = threshold == null || bin.low >= threshold - 1e-9;
    shapes.push(shape("rect", { class: above && threshold != null ? "bar above" : "bar", x: at(bin.low) + 1, y: base - tall,
      width: Math.max(1, at(bin.high) - at(bin.low) - 2), height: tall }));
  }
  if (threshold != null) {
    shapes.push(shape("line", { class: "cut", x1: at(threshold), x2: at(threshold), y1: 0, y2: height, "vector-effect": "non-scaling-stroke" }));
  }
  for (const similarity of similarities) {
    shapes.push(shape("line", { class: "found", x1: at(similarity), x2: at(similarity), y1: base + 3, y2: base + 9, "vector-effect": "non-scaling-stroke" }));
  }
  svg.replaceChildren(...shapes);
}

// Several of the server's bins in one bar: about 60 bars over the axis.
function bars(histogram, axis) {
  const size = 2 / histogram.of;
  const each = Math.max(1, Math.round((axis.high - axis.low) / size / 60));
  const made = new Map();
  for (const [bin, count] of histogram.bins) {
    const first = Math.floor(bin / each) * each;
    made.set(first, (made.get(first) ?? 0) + count);
  }
  return [...made].map(([first, count]) => ({ low: first * size - 1, high: (first + each) * size - 1, count }));
}

// The ends of the axis, which only grow while a table is shown, so that the slider stays where it is.
export function widened(axis, histogram, similarities) {
  const size = 2 / histogram.of;
  const all = [...histogram.bins.flatMap(([bin]) => [bin * size - 1, (bin + 1) * size - 1]), ...similarities];
  if (!all.length) return axis;
  const low = Math.floor(Math.min(...all) * 20 + 1e-6) / 20, high = Math.ceil(Math.max(...all) * 20 - 1e-6) / 20;
  return axis ? { low: Math.min(axis.low, low), high: Math.max(axis.high, high) } : { low, high };
}

export function countAbove(histogram, threshold) {
  const size = 2 / histogram.of;
  return histogram.bins.reduce((sum, [bin, count]) => sum + (bin * size - 1 >= threshold - 1e-9 ? count : 0), 0);
}
