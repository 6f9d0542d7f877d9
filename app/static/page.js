// The form of the start page: sends its values to the API, shows the answer or what is wrong.
// Everything from the model or the server is inserted as text, never as HTML.
"use strict";

const form = document.getElementById("form");
const problem = document.getElementById("problem");
const result = document.getElementById("result");
const stale = document.getElementById("stale");
const key = document.getElementById("key"); // only where a key is required
const nothingYet = [...result.childNodes];

const model = JSON.parse(form.dataset.model);
const inputs = model.features.map((_, i) => document.getElementById(`feature-${i}`));
const all = key ? [key, ...inputs] : inputs;
const pictures = new Map(); // by input, as data URLs
let reading = Promise.resolve();
const CLASSES_SHOWN = 8;
const NUMBERS_SHOWN = 12;
let request = new AbortController();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clear();
  await reading;
  request.abort(); // a slow answer must not overwrite a later one
  request = new AbortController();
  const { signal } = request;
  result.setAttribute("aria-busy", "true");
  const response = await fetch(form.dataset.predict, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/json",
      ...(key && { Authorization: `Bearer ${key.value.trim()}` }),
    },
    body: model.pointer ? `{"features":${values()}}` : values(),
    signal,
  }).catch(() => null);
  const answer = await response?.json().catch(() => null);
  if (signal.aborted) return;
  result.removeAttribute("aria-busy");
  if (!response) {
    showProblem({ detail: "The server can't be reached. Try again in a moment." });
  } else if (response.ok && answer) {
    showPrediction(answer, outside(response.headers.get("X-Feature-Warnings")));
  } else {
    showProblem(answer ?? {}, response.status);
  }
});

form.addEventListener("input", (event) => {
  say(event.target);
  if (event.target === key) key.defaultValue = key.value; // a reset is for the features
  stale.hidden = !result.querySelector("data");
});

form.addEventListener("reset", () => {
  request.abort();
  result.removeAttribute("aria-busy");
  clear();
  result.replaceChildren(...nothingYet);
});

// A chosen or dropped picture is read at once, as a data URL, which the API takes.
for (const input of inputs.filter((each) => each.type === "file")) {
  const area = input.closest(".drop");
  const preview = area.querySelector("img");
  const show = async () => {
    const [file] = input.files;
    pictures.delete(input);
    preview.hidden = true;
    if (!file) return;
    const url = await read(file);
    if (input.files[0] !== file) return; // another was chosen meanwhile
    pictures.set(input, url);
    preview.src = url;
    preview.hidden = false;
  };
  const renew = () => (reading = show());
  input.addEventListener("change", renew);
  form.addEventListener("reset", () => setTimeout(renew)); // once the browser has emptied it
  for (const name of ["dragenter", "dragover"]) {
    area.addEventListener(name, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) area.addEventListener(name, () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

function read(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => resolve("");
    reader.readAsDataURL(file);
  });
}

// The browser's own checks (a required value, a number) are shown like the server's.
form.addEventListener(
  "invalid",
  (event) => {
    event.preventDefault();
    say(event.target, "error", event.target.validationMessage);
    all.find((input) => !input.validity.valid).focus();
  },
  true,
);

// A target may be called as something that every object has.
function unitOf(name) {
  return Object.hasOwn(model.units, name) ? model.units[name] : "";
}

/** Return the values of the form as a JSON object, by the kinds of the features. */
function values() {
  const sent = inputs.map((_, i) => i).filter((i) => !isLeftOut(i));
  const members = sent.map((i) => `${JSON.stringify(model.features[i])}:${encoded(inputs[i].value, i)}`);
  return `{${members.join()}}`;
}

/** Return true for a text that is optional, and empty: unlike a feature, it can't be null. */
function isLeftOut(i) {
  return model.kinds[i] === "text" && model.nullable[i] && inputs[i].value === "";
}

function encoded(value, i) {
  const kind = model.kinds[i];
  if (kind === "image") return JSON.stringify(pictures.get(inputs[i]) ?? "");
  if (kind === "text") return JSON.stringify(value);
  if (value === "" && (kind !== "category" || model.nullable[i])) return "null";
  if (kind === "category") return JSON.stringify(value);
  if (kind === "boolean") return value;
  // As it was typed: a number of JavaScript doesn't hold all integers of 64 bits.
  return /^-?(0|[1-9]\d*)$/.test(value) ? value : JSON.stringify(Number(value));
}

/** Return the positions of the features in the header, whose names are percent-encoded. */
function outside(header) {
  const names = (header ?? "").split(",").map((name) => decodeURIComponent(name).trim());
  return inputs.map((_, i) => i).filter((i) => names.includes(model.features[i].trim()));
}

function showPrediction(answer, warned) {
  const shown = renderings.find(([member]) => member in answer)[1](answer);
  for (const i of warned) {
    const { range } = inputs[i].dataset;
    say(inputs[i], "warning", `Outside the range seen in training${range ? ` (${range})` : ""}.`);
  }
  if (warned.length) {
    const text = "Outside the range seen in training, so trust this less: ";
    const which = warned.map((i) => model.features[i]).join(", ");
    shown.push(element("p", "notice warning", `${text}${which}.`));
  }
  result.replaceChildren(...shown);
  result.parentElement.scrollIntoView({ block: "nearest" }); // on a phone it lies below the form
}

/** By the member of an answer that is only in those of a task, what shows it. */
const renderings = [
  ["labels", labels],
  ["probabilities", probabilities],
  ["scores", scores],
  ["values", predicted],
  ["embedding", vector],
];

function probabilities(answer) {
  const verdict = [element("p", "caption", "Most probable"), element("p", "verdict", answer.label)];
  return [...verdict, ...ranked(named(answer, answer.probabilities), list)];
}

function labels(answer) {
  const text = answer.labels.join(", ") || "None";
  const verdict = [element("p", "caption", "Labels that apply"), element("p", "verdict", text)];
  return [...verdict, ...ranked(named(answer, answer.probabilities), list)];
}

function scores(answer) {
  const verdict = [element("p", "caption", "Predicted"), element("p", "verdict", answer.label)];
  return [...verdict, ...ranked(named(answer, answer.scores), (rows) => table("Score", rows))];
}

/** Return the numbers of classes or labels with their names, and whether they are predicted. */
function named(answer, numbers) {
  // After a change of the model, this page's class names may be out of date.
  const names = answer.model_version === model.version ? model.classes : [];
  const chosen = [answer.prediction].flat();
  return Object.entries(numbers).map(([key, number], i) => ({
    name: names[i] ?? key,
    number,
    predicted: chosen.includes(i),
  }));
}

/** Show the rows, or the largest of many, with the rest out of the way. */
function ranked(rows, show) {
  if (rows.length <= CLASSES_SHOWN) return [show(rows)];
  rows.sort((a, b) => b.number - a.number);
  const rest = rows.slice(CLASSES_SHOWN);
  const more = element("details", "", element("summary", "", `${rest.length} more`), show(rest));
  return [show(rows.slice(0, CLASSES_SHOWN)), more];
}

function predicted(answer) {
  const rows = Object.entries(answer.values).map(([name, number]) => ({ name, number }));
  if (rows.length > 1) return ranked(rows, (some) => table("Value", some));
  const [{ name, number }] = rows;
  const verdict = element("p", "verdict", numeral(number));
  if (unitOf(name)) verdict.append(" ", element("span", "unit", unitOf(name)));
  return [element("p", "caption", name), verdict];
}

function vector(answer) {
  const numbers = answer.embedding.flat(Infinity);
  const shown = element("p", "numbers");
  numbers.slice(0, NUMBERS_SHOWN).forEach((number, i) => shown.append(i ? ", " : "", numeral(number)));
  if (numbers.length > NUMBERS_SHOWN) shown.append(", …");
  const caption = element("p", "caption", "Embedding");
  return [caption, element("p", "verdict", `${shape(answer.embedding)} numbers`), shown];
}

function shape(array) {
  return Array.isArray(array[0]) ? `${array.length} × ${shape(array[0])}` : `${array.length}`;
}

/** Return a number as text for people, with the exact one beside it for programs. */
function numeral(number) {
  const made = element("data", "", (number + 0).toLocaleString("en", { maximumSignificantDigits: 6 }));
  made.value = number;
  return made;
}

function table(heading, rows) {
  const head = element("tr", "", cell("th", "Name"), cell("th", heading));
  const body = rows.map(({ name, number, predicted }) => {
    const value = element("td", "", numeral(number));
    if (unitOf(name)) value.append(" ", element("span", "unit", unitOf(name)));
    return element("tr", predicted ? "predicted" : "", element("td", "", element("span", "", name)), value);
  });
  const made = element("table", "", element("thead", "", head), element("tbody", "", ...body));
  return element("div", "scroll", made);
}

function cell(tag, text) {
  const made = element(tag, "", text);
  made.scope = "col";
  return made;
}

function list(rows) {
  return element("ul", "probabilities", ...rows.map(bar));
}

function bar({ name, number: probability, predicted }) {
  const value = element("data", "", percentage(probability));
  value.value = probability;
  const fill = element("div", "fill");
  fill.style.width = `${100 * probability}%`;
  const track = element("div", "track", fill);
  track.setAttribute("aria-hidden", "true"); // the number beside it says the same
  return element("li", predicted ? "predicted" : "", element("span", "", name), value, track);
}

/** Round to a tenth of a per cent, but never to 0 % or 100 %. */
function percentage(probability) {
  if (probability > 0 && probability < 0.0005) return "< 0.1 %";
  if (probability < 1 && probability >= 0.9995) return "> 99.9 %";
  return `${(100 * probability).toFixed(1)} %`;
}

function showProblem({ detail, errors = [], request_id: id }, status) {
  const lines = [detail ?? `The server answered with status ${status}.`];
  for (const { pointer, detail: fault } of errors) {
    const i = model.features.findIndex((name) => pointer === pointerTo(name));
    if (i >= 0) say(inputs[i], "error", sentence(fault));
    else if (pointer !== model.pointer) lines.push(`${pointer} ${fault}`);
  }
  if (key && [401, 403].includes(status)) say(key, "error", "This key is not accepted.");
  problem.replaceChildren(...lines.map((line) => element("p", "", line)));
  if (id) problem.append(element("p", "id", `Request ${id}`));
  problem.hidden = false;
  result.replaceChildren(...nothingYet);
  all.find((input) => input.getAttribute("aria-invalid"))?.focus();
}

/** Return the JSON pointer (RFC 6901) of a feature as the server does: long names are cut. */
function pointerTo(name) {
  const part = [...name].slice(0, 200).join("").replaceAll("~", "~0").replaceAll("/", "~1");
  return `${model.pointer}/${part}`;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith("?") ? "" : "."}`;
}

/** Show a message at an input: an error, a warning, or (without a kind) none. */
function say(input, kind, text = "") {
  const message = input.closest(".field").querySelector(".message");
  message.className = `message ${kind ?? ""}`;
  message.textContent = text;
  message.hidden = !kind;
  input.classList.toggle("warning", kind === "warning");
  if (kind === "error") input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function clear() {
  all.forEach((input) => say(input));
  problem.hidden = true;
  problem.replaceChildren();
  stale.hidden = true;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}
