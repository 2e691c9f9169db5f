// Says what is under the pointer or the finger in a heat map: each `figure.drawn` with data holds one grid for each image.
(() => {
  const label = document.createElement("div");
  label.className = "point-at";
  label.setAttribute("role", "status");
  label.hidden = true;
  const maps = new Map(); // drawing -> its images, each with a grid; panels that flow are drawings of their own
  let mouse = null; // where it rests: the page may scroll under it

  const say = (grid, row, column, x, y) => {
    const lines = [`${grid.x} ${grid.columns[column]}`, `${grid.y} ${grid.rows[row]}`, `${grid.value} ${grid.texts[row][column]}`];
    label.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), { textContent: line })));
    label.hidden = false;
    const [width, height] = [label.offsetWidth, label.offsetHeight];
    label.style.left = `${Math.min(x + 12, innerWidth - width - 4)}px`;
    label.style.top = `${y - height - 12 > 0 ? y - height - 12 : y + 16}px`;
  };

  const point = (element, x, y) => {
    for (const { image, grid } of maps.get(element?.closest?.("svg")) ?? []) {
      const box = image.getBoundingClientRect();
      const [across, down] = [(x - box.left) / box.width, (y - box.top) / box.height];
      if (across < 0 || across >= 1 || down < 0 || down >= 1) continue;
      return say(grid, Math.floor(down * grid.rows.length), Math.floor(across * grid.columns.length), x, y);
    }
    label.hidden = true;
  };

  const pointed = (event) => {
    mouse = event.pointerType === "mouse" ? [event.clientX, event.clientY] : null;
    point(event.target, event.clientX, event.clientY);
  };
  const leave = () => {
    mouse = null;
    label.hidden = true;
  };

  addEventListener("DOMContentLoaded", () => {
    for (const figure of document.querySelectorAll("figure.drawn")) {
      const data = figure.querySelector('script[type="application/json"]');
      if (!data) continue;
      const images = figure.querySelectorAll("svg image");
      for (const [number, grid] of JSON.parse(data.textContent).entries()) {
        const image = images[number];
        const svg = image.closest("svg");
        maps.set(svg, [...(maps.get(svg) ?? []), { image, grid }]);
      }
    }
    if (!maps.size) return;
    document.body.append(label);
    addEventListener("pointermove", pointed);
    addEventListener("pointerdown", pointed);
    // A finger leaves with every tap; what it asked for stays until it scrolls or taps elsewhere.
    document.documentElement.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    addEventListener("scroll", () => (mouse ? point(document.elementFromPoint(...mouse), ...mouse) : leave()), { passive: true });
    addEventListener("keydown", (event) => event.key === "Escape" && leave());
  });
})();
