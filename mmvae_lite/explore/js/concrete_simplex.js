// A concrete variable of three classes on its triangle, and two ways to multiply two of them.

const CORNERS = [[0.5, 0.09], [0.03, 0.904], [0.97, 0.904]]; // of the square that holds the triangle; the first class is on top

const logSumExp = (values) => {
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, v) => sum + Math.exp(v - top), 0));
};

/** Log-density of a concrete variable at z, with respect to the first n - 1 coordinates (Maddison et al. 2017, equation 10). */
function concreteLogDensity(logits, temperature, z) {
  const n = logits.length;
  const terms = logits.map((logit, k) => logit - temperature * Math.log(z[k]));
  let sum = (n - 1) * Math.log(temperature);
  for (let k = 2; k < n; k++) sum += Math.log(k);
  for (let k = 0; k < n; k++) sum += terms[k] - Math.log(z[k]);
  return sum - n * logSumExp(terms);
}

function renderConcreteSimplex(context) {
  const { model } = context;
  const options = model.get("options");
  const { message, write, say, reset, start } = createExplorer(context, "mx-simplex", ["logits", "second", "temperature", "show"]);
  const faces = { first: "first", second: "second", densities: "product of densities", classes: "product of classes" };
  const choice = createChoice("Show", Object.entries(faces).map(([value, face]) => ({ value, face })), (show) => write({ show }));
  const size = 220;
  const canvas = create("canvas", { width: size, height: size, class: "mx-triangle", role: "img" });
  const overlay = createSvg("svg", { class: "mx-triangle-lines", viewBox: "0 0 100 100", "aria-hidden": "true" });
  const dots = createSvg("g", { class: "mx-draws" });
  overlay.append(createSvg("path", { d: `M${CORNERS.map(([x, y]) => `${100 * x},${100 * y}`).join("L")}Z`, class: "mx-rim" }), dots,
    ...CORNERS.map(([x, y], k) => createSvg("text", { x: 100 * x + [0, 3, -3][k], y: 100 * y + [-0.5, 5, 5][k], "text-anchor": "middle" }, options.classes[k])));
  const { uniform } = createNormal(11);
  const noise = Array.from({ length: 240 }, () => [0, 1, 2].map(() => -Math.log(-Math.log(uniform()))));
  const circles = noise.map(() => createSvg("circle", { r: 0.9 }));
  dots.append(...circles);
  const rows = [["logits", "first"], ["second", "second"]].map(([key, word]) => createGroup(key, word));
  function createGroup(key, word) {
    const dials = options.classes.map((name, k) => createDial(name, {
      label: `${word} variable, logit of class ${name}`, min: -4, max: 4, step: 0.05,
      onInput: (value) => write({ [key]: model.get(key).map((old, n) => (n === k ? value : old)) }),
    }));
    return {
      node: create("div", { class: "mx-dials" }, create("p", { class: "mx-caption" }, `${word} variable, logits`), ...dials.map(({ node }) => node)),
      show: () => dials.forEach(({ show }, k) => show(model.get(key)[k], formatNumber(model.get(key)[k]))),
    };
  }
  const temperature = createDial("temperature τ", { label: "temperature", min: -2.3, max: 1.09, step: 0.01, onInput: (value) => write({ temperature: clamp(Math.exp(value), 0.1, 3) }) });
  const holder = create("div", { class: "mx-side" });
  const tiles = createTiles([...options.classes.map((name) => `P(argmax = ${name})`), "draws near a corner"]);

  // Barycentric coordinates of the pixels inside the triangle, once.
  const [[ax, ay], [bx, by], [cx, cy]] = CORNERS;
  const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  const inside = [];
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [x, y] = [(column + 0.5) / size, (row + 0.5) / size];
      const v = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area, w = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area;
      if (v > 0.004 && w > 0.004 && 1 - v - w > 0.004) inside.push([row * size + column, [1 - v - w, v, w]]);
    }
  }
  const heights = new Float64Array(inside.length);

  const paint = () => {
    const [logits, second, T, show] = ["logits", "second", "temperature", "show"].map((key) => model.get(key));
    const sum = logits.map((v, k) => v + second[k]);
    const used = { first: logits, second, densities: sum, classes: sum }[show];
    choice.show(show);
    const wanted = show === "first" ? [rows[0]] : show === "second" ? [rows[1]] : rows; // a slider that changes nothing is not shown
    if (holder.childElementCount !== wanted.length || holder.firstChild !== wanted[0].node) holder.replaceChildren(...wanted.map(({ node }) => node));
    rows.forEach((row) => row.show());
    temperature.show(Math.log(T), formatNumber(T));
    let top = -Infinity;
    inside.forEach(([, z], n) => {
      heights[n] = show === "densities" ? concreteLogDensity(logits, T, z) + concreteLogDensity(second, T, z) : concreteLogDensity(used, T, z);
    });
    const sorted = Float64Array.from(heights).sort();
    top = sorted[Math.floor(0.995 * sorted.length)]; // corners may be without bound
    const context2d = canvas.getContext("2d");
    const picture = (canvas.mxPicture ??= context2d.createImageData(size, size));
    inside.forEach(([at], n) => heat(Math.exp(Math.min(0, heights[n] - top) / 2), picture.data, 4 * at));
    context2d.putImageData(picture, 0, 0);
    const improper = show === "densities" && T <= 1;
    const total = logSumExp(used);
    const probabilities = used.map((v) => Math.exp(v - total));
    let near = 0;
    noise.forEach((g, n) => {
      const raw = used.map((v, k) => (v + g[k]) / T);
      const all = logSumExp(raw);
      const z = raw.map((v) => Math.exp(v - all));
      if (Math.max(...z) > 0.95) near++;
      setAttributes(circles[n], {
        cx: 100 * z.reduce((s, v, k) => s + v * CORNERS[k][0], 0), cy: 100 * z.reduce((s, v, k) => s + v * CORNERS[k][1], 0),
        class: show === "densities" ? "mx-gone" : null,
      });
    });
    tiles.show([...probabilities.map((p) => (show === "densities" ? "\u2014" : formatNumber(p))), show === "densities" ? "\u2014" : `${formatNumber((100 * near) / noise.length, 0)}%`]);
    const best = options.classes[probabilities.indexOf(Math.max(...probabilities))];
    const text = show === "densities"
      ? (improper ? "The product of these two densities has no finite integral: τ is not above 1, and at the corners it grows without bound."
        : "The product of these two densities has a finite integral, but it is no concrete density: no formula draws from it.")
      : `Class ${best} is the most probable with ${formatNumber(Math.max(...probabilities))}; the temperature does not change that. `
        + `${formatNumber((100 * near) / noise.length, 0)}% of the draws lie near a corner.`;
    canvas.setAttribute("aria-label", `Density on a triangle, ${faces[show]}. ${text}`);
    context.el.classList.toggle("mx-bad", improper);
    say(text);
  };
  return start([
    create("div", { class: "mx-head" }, choice.node, reset()),
    create("div", { class: "mx-main" },
      create("div", { class: "mx-view" }, create("div", { class: "mx-triangle-box mx-picture" }, canvas, overlay)),
      create("div", { class: "mx-side" }, create("div", { class: "mx-dials" }, temperature.node), holder)),
    message, tiles.node], paint);
}
