// Brings every `.head-map` to life: a grid of layers x heads; the chosen head's attention map beside it.
(() => {
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

  const unpack = (packed) => {
    const bytes = atob(packed);
    return (query, key) => bytes.charCodeAt((query * (query + 1)) / 2 + key) / 255;
  };

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const build = (root) => {
    const { model, tokens, alpha, maps, strongest, layers: numbers } = JSON.parse(root.querySelector("script").textContent);
    const [layers, heads, size] = [alpha.length, alpha[0].length, tokens.length];
    const status = element("p", { class: "head-map-status", "aria-live": "polite" });
    const canvas = element("canvas", { class: "head-map-canvas", role: "img" });
    const hint = element("p", { class: "head-map-hint" }, "Point at a cell of the map to read it.");
    const grid = element("div", { class: "head-map-grid", role: "grid", "aria-label": `${model}: layers and heads` });
    grid.style.setProperty("--layers", layers);
    let weight = null;
    const buttons = [];

    const cell = (layer, head) => {
      const share = alpha[layer][head];
      const button = element("button", {
        type: "button", role: "gridcell", tabindex: "-1",
        "aria-label": `layer ${numbers[layer]}, head ${head}: ${percent(share)} of its attention on the first token`,
        title: `layer ${numbers[layer]}, head ${head}: ${percent(share)}`,
      });
      button.style.backgroundColor = colour(share);
      button.addEventListener("click", () => choose(layer, head));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        const [x, y] = [(layer + step[0] + layers) % layers, (head + step[1] + heads) % heads];
        choose(x, y);
        buttons[x][y].focus();
      });
      return button;
    };

    const geometry = () => {
      const width = canvas.clientWidth;
      const margin = Math.min(90, width * 0.24);
      return { width, margin, step: (width - margin) / size };
    };

    const paint = () => {
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
      for (let query = 0; query < size; query++)
        for (let key = 0; key <= query; key++) {
          pen.fillStyle = colour(weight(query, key));
          pen.fillRect(margin + key * step, margin + query * step, step + 0.3, step + 0.3);
        }
    };

    const choose = (layer, head) => {
      buttons.flat().forEach((button) => { button.tabIndex = -1; button.setAttribute("aria-selected", "false"); });
      buttons[layer][head].tabIndex = 0;
      buttons[layer][head].setAttribute("aria-selected", "true");
      weight = unpack(maps[layer][head]);
      status.textContent =
        `Layer ${numbers[layer]}, head ${head}: ${percent(alpha[layer][head])} of its attention goes to the first token.`;
      canvas.setAttribute("aria-label", `Attention map of ${model}, ${status.textContent}`);
      paint();
    };

    canvas.addEventListener("pointermove", (event) => {
      const { margin, step } = geometry();
      const [key, query] = [event.offsetX, event.offsetY].map((at) => Math.floor((at - margin) / step));
      hint.textContent = key < 0 || query < 0 || key > query || query >= size
        ? "Point at a cell of the map to read it."
        : `“${visible(tokens[query])}” (token ${query}) gives “${visible(tokens[key])}” (token ${key}) ` +
          `${percent(weight(query, key))} of its attention.`;
    });

    for (let layer = 0; layer < layers; layer++)
      buttons.push(Array.from({ length: heads }, (_, head) => cell(layer, head)));
    for (let head = 0; head < heads; head++)
      grid.append(element("div", { role: "row" }, ...buttons.map((column) => column[head])));
    const scale = element("p", { class: "head-map-scale", "aria-hidden": "true" }, "0",
      element("span", { style: `background: linear-gradient(to right, ${STOPS.map((s) => `rgb(${s})`)})` }),
      "1 (all attention)");
    root.append(
      element("div", { class: "head-map-left" },
        element("p", { class: "head-map-title" }, `${model}: attention to the first token, layers → , heads ↓`),
        grid, scale, status),
      element("div", { class: "head-map-right" }, canvas, hint));
    root.querySelector(".head-map-static").remove();
    root.classList.add("alive");
    choose(numbers.indexOf(strongest.layer), strongest.head);
    new ResizeObserver(paint).observe(root);
    new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  };

  addEventListener("DOMContentLoaded", () => document.querySelectorAll(".head-map").forEach(build));
})();
