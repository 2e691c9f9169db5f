// Brings every `.dose-slider` to life: a slider over the recorded doses, and bars for what each does to every model.
(() => {
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // One outcome of one model: `show` moves its bar, its interval and its text to those of another dose.
  const row = (label, untouched) => {
    const [bar, reach] = [element("span", { class: "dose-bar" }), element("span", { class: "dose-reach" })];
    const mark = element("span", { class: "dose-untouched" });
    mark.style.left = `${100 * untouched}%`;
    const text = element("span", { class: "dose-text" });
    const track = element("span", { class: "dose-track", "aria-hidden": "true" }, bar, mark, reach);
    const show = (of) => {
      bar.style.width = `${100 * of.at}%`;
      reach.style.left = `${100 * of.low}%`;
      reach.style.width = `${100 * (of.high - of.low)}%`;
      text.textContent = of.text;
    };
    return { show, part: element("div", { class: "dose-row" }, element("span", {}, label), track, text) };
  };

  const build = (root, number) => {
    const { label, doses, start, outcomes, models } = JSON.parse(root.querySelector("script").textContent);
    const id = `dose-slider-${number}`;
    const input = element("input", { type: "range", id, min: 0, max: doses.length - 1, step: 1, value: start });
    const output = element("output", { for: id });
    const ticks = element("div", { class: "dose-ticks", "aria-hidden": "true" });
    ticks.append(...doses.map(({ nats }) => element("span", {}, nats)));

    const groups = models.map((model) => {
      const rows = outcomes.map((outcome, place) => row(outcome, model.untouched[place]));
      const part = element("div", { class: "dose-model", role: "group", "aria-label": model.name },
        element("p", { class: "dose-name" }, model.name), ...rows.map((one) => one.part));
      part.style.setProperty("--model", model.color);
      return { part, show: (place) => rows.forEach((one, outcome) => one.show(model.bars[place][outcome])) };
    });

    const show = () => {
      const place = Number(input.value);
      const { nats, odds } = doses[place];
      const said = Number(nats) ? `${nats} nats: odds of attending to the first key × ${odds}` : "0 nats: the untouched model";
      input.setAttribute("aria-valuetext", said);
      // The bars are seen; whoever hears the page gets their numbers with the dose.
      const heard = models.map((model) =>
        `${model.name}: ${outcomes.map((outcome, number) => `${outcome} ${model.bars[place][number].text}`).join("; ")}.`);
      output.replaceChildren(said, element("span", { class: "visually-hidden" }, `. ${heard.join(" ")}`));
      groups.forEach((group) => group.show(place));
      [...ticks.children].forEach((tick, at) => tick.classList.toggle("chosen", at === place));
    };
    input.addEventListener("input", show);

    const table = root.querySelector(".dose-slider-table");
    const folded = element("details", { class: "folded" }, element("summary", {}, "All doses as a table"));
    table.replaceWith(folded);
    folded.append(table);
    root.prepend(
      element("div", { class: "dose-control" }, element("label", { for: id }, label), input, ticks, output),
      element("div", { class: "dose-models" }, ...groups.map((group) => group.part)),
      element("p", { class: "dose-legend" }, "The short line along the end of a bar is its 95 % interval over texts; the upright line is the untouched model."));
    root.classList.add("alive");
    show();
  };

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".dose-slider").forEach(build));
})();
