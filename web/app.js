// The page: what is asked, the calls to the server, and what changes when an answer comes.

import * as show from "./results.js";
import { element } from "./results.js";

const $ = (id) => document.getElementById(id);
// The address that `make web` printed has the key behind the #.
const KEY = location.hash.slice(1);
const PAGE = crypto.randomUUID();
// A search starts when nothing was typed for so many milliseconds.
const PAUSE = 160;
const WIDE = matchMedia("(min-width: 60rem)").matches;
const PARTS = ["meaning", "words", "both"];

const state = {
  tables: [], table: null,
  // Three lists where they have room beside each other.
  view: WIDE ? "all" : "both",
  filter: {}, threshold: null, suggested: null,
  answers: {}, terms: null, histogram: null, histogramOf: null, axis: null,
  serial: 0, running: null, timer: 0,
};

// -- Calls --

class Gone extends Error {}

async function post(path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json", "X-Key": KEY }, body: JSON.stringify(body), signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Gone();
  }
  return response;
}

const PAGE_GONE = {
  kind: "page", message: "The server of this page does not answer", detail: "It ended, or this computer slept.",
  hint: "make web starts it again; open the address that it prints.",
};

async function call(path, body = {}) {
  let answer;
  try {
    answer = await (await post(path, body)).json();
  } catch (error) {
    answer = { problem: PAGE_GONE };
  }
  return answer;
}

const chosen = () => ({ table: state.table.oid, embedding: state.table.embedding });

function complain(problem, retry) {
  const box = $("problem");
  box.replaceChildren(...(problem ? show.problem(problem, retry) : []));
  box.hidden = !problem;
}

// -- Searching --

function searchSoon(pause = PAUSE) {
  clearTimeout(state.timer);
  state.timer = setTimeout(search, pause);
}

// Documents in chunks are searched by meaning only.
function partsShown() {
  if (state.table?.documents) return ["meaning"];
  return state.view === "all" ? PARTS : [state.view];
}

function forget() {
  state.running?.abort();
  state.running = null;
  clearTimeout(state.timer);
}

async function search() {
  forget();
  const text = $("search").value;
  if (!state.table) return;
  if (!text.trim()) {
    state.answers = {};
    state.histogram = state.histogramOf = null;
    complain(null);
    refresh();
    return;
  }
  const ours = (state.running = new AbortController());
  const serial = ++state.serial;
  const wanted = partsShown();
  const histogramOf = JSON.stringify([text, state.table.oid, state.table.embedding]);
  const parts = histogramOf === state.histogramOf ? wanted : [...wanted, "histogram"];
  $("results").setAttribute("aria-busy", "true");
  const answers = {};
  let problem = null, ended = false, listed = false;
  try {
    const response = await post("/api/search", {
      ...chosen(), page: PAGE, serial, parts, search: text, count: Number($("rows").value),
      threshold: state.threshold, filter: state.filter,
    }, ours.signal);
    if (response.headers.get("Content-Type") === "application/json") problem = (await response.json()).problem;
    else for await (const line of lines(response.body)) {
      if (line.part === "end") ended = true;
      else if (line.part === "all") problem = line.problem;
      else if (line.part === "terms") state.terms = line;
      else if (line.part === "histogram") {
        state.histogram = line.problem ? null : line;
        state.histogramOf = line.problem ? null : histogramOf;
      } else answers[line.part] = line;
      // The histogram may take longer than the lists.
      if (line.part === wanted.at(-1) && wanted.some((part) => answers[part].rows)) {
        listed = true;
        state.answers = answers;
        refresh();
      }
    }
    if (!problem && !ended) problem = PAGE_GONE;
  } catch (error) {
    if (ours.signal.aborted) return;
    problem = PAGE_GONE;
  }
  if (ours.signal.aborted) return;
  state.running = null;
  if (problem?.kind === "cancelled") return;
  $("results").setAttribute("aria-busy", "false");
  const problems = wanted.map((part) => answers[part]?.problem);
  if (!problem && problems.every((one) => one && one.message === problems[0].message)) {
    // One error of all lists is said once.
    [problem] = problems;
    for (const part of wanted) delete answers[part];
  }
  complain(problem, search);
  if (problem) state.histogramOf = null;
  state.answers = answers;
  // What is shown already stays, so that nothing moves away under a click.
  if (listed && !problem) refreshHistogram();
  else refresh();
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (rest + value).split("\n");
    rest = found.pop();
    for (const line of found) if (line) yield JSON.parse(line);
  }
}

// -- Showing --

function refresh() {
  const parts = partsShown().filter((part) => state.answers[part]);
  const results = $("results");
  results.dataset.lists = $("statement-list").dataset.lists = parts.length;
  results.setAttribute("aria-busy", "false");
  results.replaceChildren(...parts.map((part) => show.list(part, state.answers[part], state.terms, state.threshold, state.table.documents)));
  const good = parts.filter((part) => state.answers[part].rows);
  const asked = $("search").value.trim();
  $("count").textContent = good.length
    ? good.map((part) => `${show.counted(state.answers[part].rows.length, "row")} ${show.NAMES[part].toLowerCase()}`).join(", ")
    : asked || !state.table?.readable ? "" : "Results come while you type.";
  $("statements").hidden = !good.length;
  $("statements-title").textContent = good.length > 1 ? "The statements" : "The statement";
  $("statement-list").replaceChildren(...good.map((part) => show.statement(part, state.answers[part], copy)));
  refreshHistogram();
}

const similarities = () => (state.answers.meaning?.rows ?? []).map((row) => row.similarity);

function refreshHistogram() {
  const slider = $("threshold");
  if (state.histogram) state.axis = show.widened(state.axis, state.histogram, similarities());
  const axis = state.axis ?? { low: 0, high: 1 };
  if (state.threshold != null) {
    axis.low = Math.min(axis.low, Math.floor(state.threshold * 20 - 1e-6) / 20);
    axis.high = Math.max(axis.high, state.threshold);
  }
  slider.min = axis.low.toFixed(3);
  slider.max = axis.high.toFixed(3);
  slider.value = state.threshold ?? axis.low;
  $("axis-low").textContent = axis.low.toFixed(2);
  $("axis-high").textContent = axis.high.toFixed(2);
  const shown = state.threshold == null ? "any" : state.threshold.toFixed(3);
  $("threshold-shown").textContent = shown;
  slider.setAttribute("aria-valuetext", state.threshold == null ? "any similarity" : shown);
  $("no-threshold").hidden = state.threshold == null;
  show.draw($("histogram"), state.histogram, axis, state.threshold, similarities());
  $("histogram-note").textContent = histogramNote();
}

function histogramNote() {
  const { histogram, threshold } = state;
  if (!histogram) return "Once you search, a histogram shows how similar the rows are.";
  if (!histogram.sampled && histogram.whole) return "No row has an embedding, so none is found by meaning. “This table” below says what is missing.";
  const of = histogram.whole ? `all ${show.counted(histogram.sampled, "row")}`
    : `a sample of ${show.counted(histogram.sampled, "row")}` + (histogram.rows ? ` of about ${show.number(histogram.rows)}` : "");
  const parts = [threshold == null ? `Bars: ${of}, by the square root of their number.`
    : `${show.number(show.countAbove(histogram, threshold))} of ${of} are at least so similar.`];
  if (Object.keys(state.filter).length) parts.push("Without the filters.");
  if (state.answers.meaning?.rows?.length) parts.push("Marks below: the rows found by meaning.");
  const shown = partsShown();
  if (threshold != null && shown.some((part) => part !== "meaning")) {
    parts.push("The threshold applies to the search by meaning; "
      + (shown.length > 1 ? "the other lists show rows below it in grey." : "this list shows rows below it in grey."));
  }
  return parts.join(" ");
}

async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the permission, as some browsers have it.
    const area = element("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Select it and copy";
  $("count").textContent = done ? "The statement was copied." : "The browser does not allow copying.";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// -- Filters --

async function loadFilters() {
  const table = state.table;
  const answer = await call("/api/filters", chosen());
  if (state.table !== table) return;
  const fields = answer.filters ?? [];
  $("filter-fields").replaceChildren(...fields.map(filterField));
  $("filters").hidden = !fields.length;
  document.querySelector(".band").classList.toggle("two", fields.length > 0);
  refreshHistogram();
}

// Values come as text. The extension reads a string in the notation of the column's type.
function filterField(field) {
  const name = `${field.column}, ${field.type}`;
  if (field.choice) {
    const boxes = field.values.map((value) => {
      const box = element("input", { type: "checkbox" });
      box.filterValue = value;
      return [box, element("label", {}, box, element("span", { dir: "auto" }, value === null ? "empty" : value === "" ? "“”" : value))];
    });
    const set = element("fieldset", { "data-column": field.column }, element("legend", { title: field.type }, field.column),
      element("div", { class: "picks" }, ...boxes.map(([, label]) => label)));
    set.addEventListener("change", () => {
      filterBy(field.column, boxes.filter(([box]) => box.checked).map(([box]) => box.filterValue));
    });
    return set;
  }
  const values = field.values.filter((value) => value !== null);
  const examples = element("datalist", { id: `values-of-${field.column}` }, ...values.map((value) => element("option", { value })));
  const input = element("input", { type: "text", inputmode: field.number ? "decimal" : "text", list: examples.id,
    placeholder: "exactly", "aria-label": name, autocomplete: "off", spellcheck: "false", dir: "auto", "data-column": field.column });
  // The field drops the line breaks of a value, and spaces around what is typed are not meant. Those of a value are.
  const plain = (value) => value.replace(/[\r\n]/g, "").trim();
  const offered = (value) => (values.includes(value) ? [value] : values.filter((one) => plain(one) === plain(value)));
  input.addEventListener("input", () => {
    const found = offered(input.value);
    filterBy(field.column, plain(input.value) === "" ? [] : found.length ? found : [input.value.trim()]);
  });
  return element("label", { title: field.type }, field.column, input, examples);
}

function filterBy(column, values) {
  if (values.length) state.filter[column] = values.length === 1 ? values[0] : values;
  else delete state.filter[column];
  countFilters();
  searchSoon();
}

function clearFilters() {
  state.filter = {};
  for (const input of $("filter-fields").querySelectorAll("input")) {
    input.checked = false;
    if (input.type !== "checkbox") input.value = "";
  }
  countFilters();
}

function countFilters() {
  const count = Object.keys(state.filter).length;
  $("clear-filters").hidden = !count;
  $("filter-count").textContent = count ? `${count} in use` : "";
}

// -- The table and the model --

async function fill(box, path, body, make) {
  box.replaceChildren(element("p", { class: "note" }, "…"));
  const answer = await call(path, body);
  box.replaceChildren(...(answer.problem ? [element("div", { class: "problem" }, ...show.problem(answer.problem))] : [].concat(make(answer))));
}

const loadStatus = () => fill(document.querySelector("#status .inside"), "/api/status", chosen(), (answer) => show.status(answer.status));

async function loadModel() {
  await fill(document.querySelector("#model .inside"), "/api/model", {}, (answer) => show.model(answer.values));
}

async function selftest() {
  const button = $("selftest");
  button.disabled = true;
  await fill($("selftest-result"), "/api/selftest", {}, (answer) =>
    [show.model(answer.values), show.factList([["time", show.time(answer.seconds)]])]);
  button.disabled = false;
  button.focus();
}

async function loadSuggestion() {
  const answer = await call("/api/model");
  const found = answer.values?.find(([name]) => name === "suggested_threshold")?.[1];
  state.suggested = found == null ? null : Number(found);
  $("suggested").hidden = state.suggested == null;
  $("suggested").textContent = `Suggested: ${state.suggested?.toFixed(2)}`;
}

function setThreshold(value) {
  state.threshold = value;
  refreshHistogram();
  searchSoon(100);
}

function chooseTable(table) {
  forget();
  Object.assign(state, { table, answers: {}, histogram: null, histogramOf: null, axis: null, threshold: null, terms: null });
  clearFilters();
  $("filters").hidden = true;
  $("view").hidden = Boolean(table?.documents);
  complain(null);
  refresh();
  if (!table) return;
  $("search").placeholder = table.rows ? `Search ${show.counted(table.rows, table.documents ? "chunk" : "row")}` : "What are you looking for?";
  if (table.readable) loadFilters();
  if ($("status").open) loadStatus();
  if (!table.readable) {
    call("/api/status", chosen()).then((answer) => state.table === table && complain(answer.problem, start));
  } else search();
}

async function start() {
  const answer = await call("/api/overview");
  if (answer.problem) {
    complain(answer.problem, start);
    return;
  }
  complain(null);
  state.overview = answer;
  state.tables = answer.tables;
  $("place").textContent = `in ${answer.database}, read by ${answer.role} · PostgreSQL ${answer.server} · gte-small ${answer.extension}`;
  const select = $("table");
  const many = new Set(state.tables.map((table) => table.oid)).size < state.tables.length;
  select.replaceChildren(...state.tables.map((table, place) => element("option", { value: place },
    table.label + (table.documents ? ", documents" : many ? ` (${table.embedding})` : "") + (table.readable ? "" : ", no right to read"))));
  select.disabled = !state.tables.length;
  if (!state.tables.length) {
    complain({ message: "No table of this database has a search", detail: "",
      hint: "select enable_semantic_search('docs', '{body}');" }, start);
    return;
  }
  const first = state.tables.findIndex((table) => table.readable && table.searchable);
  select.value = Math.max(0, first);
  chooseTable(state.tables[select.value]);
  loadSuggestion();
}

// -- Events --

$("search").addEventListener("input", () => { forget(); searchSoon(); });
$("ask").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("table").addEventListener("change", (event) => chooseTable(state.tables[event.target.value]));
$("rows").addEventListener("change", search);
$("view").addEventListener("change", (event) => {
  state.view = event.target.value;
  if (partsShown().every((part) => state.answers[part]?.rows)) refresh();
  else search();
});
$("threshold").addEventListener("input", (event) => {
  const value = Number(event.target.value);
  setThreshold(value <= Number(event.target.min) + 1e-9 ? null : value);
});
$("suggested").addEventListener("click", () => setThreshold(state.suggested));
$("no-threshold").addEventListener("click", () => { setThreshold(null); $("threshold").focus(); });
$("clear-filters").addEventListener("click", () => { clearFilters(); $("filter-fields").querySelector("input")?.focus(); search(); });
$("status").addEventListener("toggle", (event) => { if (event.target.open && state.table) loadStatus(); });
$("model").addEventListener("toggle", (event) => { if (event.target.open) loadModel(); });
$("selftest").addEventListener("click", selftest);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("search").select();
  }
});

document.querySelector(`input[name="view"][value="${state.view}"]`).checked = true;
document.querySelector("#filters details").open = WIDE;
start();
