// The fields of a request, as a form has them.

import { el, problem, visible } from "./elements.js";

/** What is typed, as a body. What is no number goes as it is: the server says what is wrong with it. */
export function bodyOf(form) {
  const { prompt, several } = form.elements;
  const body = several?.checked ? { prompts: prompt.value.split("\n").filter((line) => line.trim()) } : { prompt: prompt.value };
  for (const name of ["max_tokens", "temperature", "top_p", "seed"]) {
    const typed = form.elements[name]?.value.trim() ?? "";
    if (typed !== "") body[name] = /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(typed) ? Number(typed) : typed;
  }
  return { ...body, ...modelOf(form) };
}

/** The model that is chosen, where there are several. */
export function modelOf(form) {
  const model = form.elements.model?.value;
  return model ? { model } : {};
}

/** Offers the models, if there are several; what is chosen stays so. */
export function offerModels(form, names) {
  const menu = form.elements.model;
  const offered = names.length > 1 ? names : [];
  menu.closest(".field").hidden = offered.length === 0;
  if (JSON.stringify([...menu.options].map((option) => option.value)) === JSON.stringify(offered)) return;
  const chosen = menu.value;
  menu.replaceChildren(...offered.map((name) => el("option", { value: name }, visible(name))));
  if (offered.includes(chosen)) menu.value = chosen;
  menu.dispatchEvent(new Event("input", { bubbles: true })); // the code beside the form names it
}

/** Puts the fields of a request back. */
export function fill(form, asked) {
  for (const name of ["prompt", "max_tokens", "temperature", "top_p", "seed"]) {
    if (form.elements[name]) form.elements[name].value = asked[name] ?? "";
  }
  if (form.elements.several) form.elements.several.checked = false;
}

/** On a narrow screen the fields that few need are folded. */
export function foldMore(form) {
  const more = form.querySelector("details.more");
  const narrow = matchMedia("(max-width: 48rem)"); // as in style.css
  const fold = () => (more.open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
}

/** Shows what went wrong, at the field if it is one's. */
export function showProblem(form, error) {
  clearProblem(form);
  form.querySelector(".problem-place").replaceChildren(problem(error));
  const name = error.field?.replace(/^(prompts|messages)\b.*/, "prompt");
  const field = name && form.elements[name];
  if (field) {
    const folded = field.closest("details");
    if (folded) folded.open = true;
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

/** Nothing is wrong any more. */
export function clearProblem(form) {
  form.querySelector(".problem-place").replaceChildren();
  for (const field of form.elements) field.removeAttribute("aria-invalid");
}

/** Whether something that the button started still goes on. */
export function isBusy(button) {
  return button.getAttribute("aria-disabled") === "true";
}

/** Says on the button what goes on, for as long as it does: it stays in the order of the keyboard, and does nothing. */
export async function whileBusy(button, words, work) {
  const label = button.textContent;
  button.setAttribute("aria-disabled", "true");
  button.textContent = words;
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
    button.textContent = label;
  }
}

/** Ctrl+Enter in the prompt sends the form. */
export function submitByKey(form) {
  form.elements.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

/** A sentence in place of something. */
export function nothing(words) {
  return el("p", { class: "nothing" }, words);
}
