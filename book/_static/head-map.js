// Brings every `.head-map` to life: a grid of layers x heads, and where the attention of the chosen head goes. That is shown as its
// whole map, or, in a `.compact` one, as bars over the words of the passage; a compact one also has a choice of models and of
// passages.
(() => {
  const HERE = document.currentScript.src.replace(/[^/]*$/, "");
  // Ten steps of viridis, interpolated between.
  const STOPS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const colour = (value) => {
    const place = Math.min(Math.max(value, 0), 1) * (STOPS.length - 1);
    const low = Math.min(Math.floor(place), STOPS.length - 2);
    return `rgb(${STOPS[low].map((c, i) => Math.round(c + (STOPS[low + 1][i] - c) * (place - low)))})`;
  };
  const visible = (token) => token.replace(/\n/g, "⏎").trim() || "␣";
  const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  const AMOUNTS = [[0.9, "nearly all"], [0.6, "most"], [0.4, "about half"], [0.15, "some"], [0, "little"]];
  const amount = (share) => AMOUNTS.find(([least]) => share >= least)[1];

  const unpack = (packed) => {
    const bytes = atob(packed);
    return (query, key) => bytes.charCodeAt((query * (query + 1)) / 2 + key) / 255;
  };

  // What each key gets, the mean over all queries.
  const received = (weight, size) =>
    Array.from({ length: size }, (_, key) => {
      let sum = 0;
      for (let query = key; query < size; query++) sum += weight(query, key);
      return sum / size;
    });

  // The maps of a passage may be a file of their own: a script, because a page opened as a file may read no other.
  const load = (seen, then) => {
    if (seen.maps) return;
    seen.waiting ??= [];
    if (seen.waiting.push(then) > 1) return; // it has been asked for
    const script = element("script", { src: HERE + seen.source });
    const done = (fault) => seen.waiting.splice(0).forEach((one) => one(fault));
    script.onload = () => { seen.maps = script.maps; done(); };
    script.onerror = () => done("The maps of this passage could not be loaded.");
    document.head.append(script);
  };

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // -- where the attention of one head goes ----------------------------------------------------------------------

  // Queries x keys, drawn.
  const wholeMap = (root) => {
    const canvas = element("canvas", { class: "head-map-canvas", role: "img" });
    const hint = element("p", { class: "head-map-hint" }, "Point at a cell of the map to read it.");
    let [tokens, weight] = [[], null];

    const geometry = () => {
      const width = canvas.clientWidth;
      const margin = Math.min(90, width * 0.24);
      return { width, margin, step: (width - margin) / tokens.length };
    };

    const paint = () => {
      if (!weight) return;
      const { width, margin, step } = geometry();
      const ratio = window.devicePixelRatio || 1;
      canvas.width = canvas.height = width * ratio;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = `${Math.max(6, Math.min(12, step * 0.95))}px system-ui, sans-serif`;
      pen.fillStyle = getComputedStyle(canvas).color;
      pen.textBaseline = "middle";
      tokens.forEach((token, i) => {
        const text = visible(token).slice(0, 12);
        pen.textAlign = "right";
        pen.fillText(text, margin - 4, margin + (i + 0.5) * step);
        pen.save();
        pen.translate(margin + (i + 0.5) * step, margin - 4);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(text, 0, 0);
        pen.restore();
      });
      for (let query = 0; query < tokens.length; query++)
        for (let key = 0; key <= query; key++) {
          pen.fillStyle = colour(weight(query, key));
          pen.fillRect(margin + key * step, margin + query * step, step + 0.3, step + 0.3);
        }
    };

    canvas.addEventListener("pointermove", (event) => {
      const { margin, step } = geometry();
      const [key, query] = [event.offsetX, event.offsetY].map((at) => Math.floor((at - margin) / step));
      hint.textContent = key < 0 || query < 0 || key > query || query >= tokens.length
        ? "Point at a cell of the map to read it."
        : `“${visible(tokens[query])}” (token ${query}) gives “${visible(tokens[key])}” (token ${key}) ` +
          `${percent(weight(query, key))} of its attention.`;
    });
    new ResizeObserver(paint).observe(root);
    new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });

    const show = (model, seen, newWeight, said) => {
      [tokens, weight] = [seen.tokens, newWeight];
      canvas.setAttribute("aria-label", `Attention map of ${model.model}, ${said}`);
      paint();
    };
    return { parts: [canvas, hint], show };
  };

  // The passage, over each word a bar for what it gets.
  const passage = () => {
    const words = element("ol", { class: "head-map-passage" });
    const show = (model, { tokens }, weight, said) => {
      const shares = weight ? received(weight, tokens.length) : tokens.map(() => 0);
      words.setAttribute("aria-label", `Where its attention goes, the mean over the tokens of this passage. ${said}`);
      words.replaceChildren(...tokens.map((token, key) => {
        const bar = element("span", { class: "head-map-bar" });
        bar.style.setProperty("--share", shares[key]);
        const number = element("span", { class: "head-map-share" }, shares[key] >= 0.05 ? percent(shares[key]) : "");
        return element("li", { title: percent(shares[key]) }, number, bar, element("span", {}, visible(token)));
      }));
    };
    return { parts: [words], show };
  };

  // -- the grid of heads -------------------------------------------------------------------------------------------

  // Pointing at a head shows it for as long as the pointer is there; a click, a tap and the arrow keys choose it.
  const gridOf = (model, seen, show) => {
    const [layers, heads] = [seen.alpha.length, seen.alpha[0].length];
    const grid = element("div", { class: "head-map-grid", role: "grid", "aria-label": `${model.model}: layers and heads` });
    grid.style.setProperty("--layers", layers);
    const places = new Map(); // of each button, its layer's row and its head
    let chosen = null;

    const choose = (layer, head) => {
      if (chosen) {
        chosen.tabIndex = -1;
        chosen.setAttribute("aria-selected", "false");
      }
      chosen = buttons[layer][head];
      chosen.tabIndex = 0;
      chosen.setAttribute("aria-selected", "true");
      show(layer, head);
    };

    const cell = (layer, head) => {
      const share = seen.alpha[layer][head];
      const where = `layer ${model.layers[layer]}, head ${head}: ${percent(share)}`;
      const button = element("button", {
        type: "button", role: "gridcell", tabindex: "-1", "aria-selected": "false", title: where,
        "aria-label": `${where} of its attention on the first token`,
      });
      button.style.backgroundColor = colour(share);
      places.set(button, [layer, head]);
      return button;
    };
    const buttons = seen.alpha.map((row, layer) => row.map((_, head) => cell(layer, head)));
    for (let head = 0; head < heads; head++)
      grid.append(element("div", { role: "row" }, ...buttons.map((column) => column[head])));

    grid.addEventListener("click", (event) => places.has(event.target) && choose(...places.get(event.target)));
    grid.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step || !chosen) return;
      event.preventDefault();
      const [layer, head] = places.get(chosen);
      choose((layer + step[0] + layers) % layers, (head + step[1] + heads) % heads);
      chosen.focus();
    });
    // A finger stays with the square that it first touched, so what is under it is looked up.
    grid.addEventListener("pointermove", (event) => {
      const under = places.get(document.elementFromPoint(event.clientX, event.clientY));
      if (under && event.pointerType === "mouse") show(...under);
      else if (under) choose(...under);
    });
    grid.addEventListener("pointerleave", () => chosen && show(...places.get(chosen)));

    const { layer, head } = seen.strongest;
    const start = (place) => choose(...(place ?? [model.layers.indexOf(layer), head]));
    return { grid, start, place: () => places.get(chosen), again: () => show(...places.get(chosen)) };
  };

  // -- a whole element -----------------------------------------------------------------------------------------------

  const build = (root) => {
    const models = [].concat(JSON.parse(root.querySelector("script").textContent));
    const view = root.classList.contains("compact") ? passage() : wholeMap(root);
    const title = element("p", { class: "head-map-title" });
    const stage = element("div");
    const status = element("p", { class: "head-map-status", "aria-live": "polite" });
    const caption = element("p", { class: "head-map-caption" });
    const scale = element("p", { class: "head-map-scale", "aria-hidden": "true" }, "0",
      element("span", { style: `background: linear-gradient(to right, ${STOPS.map((s) => `rgb(${s})`)})` }),
      "1 (all attention)");

    let [model, number, current] = [models[0], 0, null];

    // At `place`, a row of layers and a head, or at the strongest head.
    const open = (place) => {
      const seen = model.passages[number];
      const show = (layer, head) => {
        const share = seen.alpha[layer][head];
        status.textContent = `Layer ${model.layers[layer]}, head ${head}: ${amount(share)} of its attention, ` +
          `${percent(share)}, goes to the first token, “${visible(seen.tokens[0])}”.`;
        view.show(model, seen, seen.maps ? unpack(seen.maps[layer][head]) : null, status.textContent);
      };
      const opened = (current = gridOf(model, seen, show));
      title.textContent = models.length > 1 ? "Attention to the first token: layers →, heads ↓"
        : `${model.model}: attention to the first token, layers → , heads ↓`;
      caption.textContent = seen.caption ?? "";
      stage.replaceChildren(opened.grid);
      opened.start(place);
      load(seen, (fault) => {
        if (current !== opened) return; // another one was chosen meanwhile
        opened.again();
        if (fault) status.append(` ${fault}`);
      });
    };

    // Native radio buttons: arrow keys move between them.
    const many = [...document.querySelectorAll(".head-map")].indexOf(root);
    const choiceOf = (name, labels, choose) => {
      if (labels.length < 2) return [];
      const menu = labels.map((label, at) => {
        const input = element("input", { type: "radio", name: `head-map-${many}-${name}` });
        input.checked = !at;
        input.addEventListener("change", () => choose(at));
        return element("label", {}, input, ` ${label}`);
      });
      return [element("fieldset", { class: "head-map-models" }, element("legend", {}, name), ...menu)];
    };
    const choices = [
      ...choiceOf("Model", models.map((one) => one.model), (at) => { model = models[at]; open(); }),
      // The same head on another passage.
      ...choiceOf("Passage", model.passages.map((one) => one.title), (at) => { number = at; open(current.place()); }),
    ];
    root.append(
      element("div", { class: "head-map-left" }, ...choices, title, stage, scale, status),
      element("div", { class: "head-map-right" }, ...view.parts, ...(model.passages[0].caption ? [caption] : [])));
    root.querySelector(".head-map-static").remove();
    root.classList.add("alive");
    open();
  };

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".head-map").forEach(build));
})();
