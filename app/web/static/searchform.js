// The search form: parameters of the address in, parameters out.
import { ChipInput } from "./chips.js";
import { byId } from "./dom.js";
import { DEFAULTS, NOT, boundName, filterCount } from "./query.js";

export class SearchForm {
  /** `submit(params)` is called when the user searches or changes an option of a search that is shown. */
  constructor(submit) {
    this.form = byId("search-form");
    this.box = byId("search-box");
    this.chips = [...this.form.querySelectorAll(".chips")].map((root) => new ChipInput(root));
    this.choices = this.form.querySelectorAll("[data-kind=choices] input");
    this.bounds = this.form.querySelectorAll("[data-bound]");
    this.alpha = byId("alpha");
    this.alphaChosen = false;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.box.value.trim()) submit(this.read());
      else this.box.focus();
    });
    this.alpha.addEventListener("input", () => {
      this.alphaChosen = true;
      this.refresh();
    });
    this.form.addEventListener("change", (event) => {
      this.refresh();
      // a year that is being typed passes through 0002 and 0020
      const typing = event.target.type === "date" && event.target.value.startsWith("0");
      if (event.target !== this.box && !typing && this.box.value.trim()) submit(this.read());
    });
    byId("options-toggle").addEventListener("click", () => this.toggle());
    byId("clear-filters").addEventListener("click", () => {
      this.fill(new URLSearchParams({ q: this.box.value }));
      if (this.box.value.trim()) submit(this.read());
    });
  }

  bound(input) {
    return boundName(input.closest("[data-filter]").dataset.filter, input.dataset.bound);
  }

  radio(name) {
    return this.form.querySelector(`input[name=${name}]:checked`).value;
  }

  /** The form as parameters; what is as the default says is left out. */
  read() {
    const params = new URLSearchParams();
    const set = (name, value, standard) => {
      if (value !== "" && value !== standard) params.append(name, value);
    };
    set("q", this.box.value.trim());
    const mode = this.radio("mode");
    set("mode", mode, DEFAULTS.mode);
    if (mode === "hybrid") {
      set("fusion", this.radio("fusion"), DEFAULTS.fusion);
      if (this.radio("fusion") === "linear" && this.alphaChosen) set("alpha", this.alpha.value);
    }
    for (const chip of this.chips) {
      chip.take();
      for (const value of chip.values) params.append(chip.name, value);
    }
    for (const box of this.choices) if (box.checked) params.append(box.name, box.value);
    for (const input of this.bounds) set(this.bound(input), input.value);
    set("size", byId("size").value, String(DEFAULTS.size));
    if (byId("explain").checked) params.append("explain", "1");
    return params;
  }

  /** Show parameters in the form. */
  fill(params) {
    this.box.value = params.get("q") ?? "";
    this.check("mode", params.get("mode") ?? DEFAULTS.mode);
    this.check("fusion", params.get("fusion") ?? DEFAULTS.fusion);
    this.alphaChosen = params.has("alpha");
    this.alpha.value = params.get("alpha") ?? "0.5";
    for (const chip of this.chips) chip.set(params.getAll(chip.name));
    for (const box of this.choices) box.checked = params.getAll(box.name).includes(box.value);
    for (const input of this.bounds) input.value = params.get(this.bound(input)) ?? "";
    byId("size").value = params.get("size") ?? String(DEFAULTS.size);
    byId("explain").checked = params.has("explain");
    if ([...params.keys()].some((name) => name.startsWith(NOT))) byId("leave-out").open = true;
    this.refresh(filterCount(params));
  }

  check(name, value) {
    for (const radio of this.form.querySelectorAll(`input[name=${name}]`)) radio.checked = radio.value === value;
    // an address may name anything; the service judges it, the form shows its default
    if (!this.form.querySelector(`input[name=${name}]:checked`)) this.form.querySelector(`input[name=${name}]`).checked = true;
  }

  refresh(filters = null) {
    const hybrid = this.radio("mode") === "hybrid";
    byId("fusion").disabled = !hybrid;
    byId("alpha-row").hidden = !hybrid || this.radio("fusion") !== "linear";
    byId("alpha-value").textContent = this.alphaChosen ? Number(this.alpha.value).toFixed(2) : "default";
    if (filters !== null) byId("options-toggle").textContent = filters > 0 ? `Options (${filters} ${filters === 1 ? "filter" : "filters"})` : "Options";
  }

  toggle() {
    const button = byId("options-toggle");
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    byId("options").classList.toggle("open", open);
  }
}
