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
const CLASSES_SHOWN = 8;
let request = new AbortController();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clear();
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
    body: JSON.stringify({ features: values() }),
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

function values() {
  // fromEntries, because an assignment to a feature named __proto__ would be lost.
  return Object.fromEntries(
    inputs.map((input, i) => [model.features[i], input.value === "" ? null : Number(input.value)]),
  );
}

/** Return the positions of the features in the header, whose names are percent-encoded. */
function outside(header) {
  const names = (header ?? "").split(",").map((name) => decodeURIComponent(name).trim());
  return inputs.map((_, i) => i).filter((i) => names.includes(model.features[i].trim()));
}

function showPrediction(answer, warned) {
  // After a change of the model, this page's class names may be out of date.
  const names = answer.model_version === model.version ? model.classes : [];
  const rows = Object.entries(answer.probabilities).map(([key, probability], i) => ({
    name: names[i] ?? key,
    probability,
    predicted: i === answer.prediction,
  }));
  const few = rows.length <= CLASSES_SHOWN;
  if (!few) rows.sort((a, b) => b.probability - a.probability);
  const shown = [
    element("p", "caption", "Most probable"),
    element("p", "verdict", answer.label),
    list(rows.slice(0, CLASSES_SHOWN)),
  ];
  if (!few) {
    const rest = rows.slice(CLASSES_SHOWN);
    const more = element("details", "", element("summary", "", `${rest.length} more`), list(rest));
    shown.push(more);
  }
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

function list(rows) {
  return element("ul", "probabilities", ...rows.map(bar));
}

function bar({ name, probability, predicted }) {
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
    else if (pointer !== "/features") lines.push(`${pointer} ${fault}`);
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
  return `/features/${part}`;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
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
