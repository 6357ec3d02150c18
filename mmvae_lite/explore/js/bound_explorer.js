// Curves over one axis, read at a point that the reader moves.

function renderBoundExplorer(context) {
  const { model } = context;
  const options = model.get("options");
  const { message, write, say, reset, start, soon, onEnd } = createExplorer(context, "mx-bounds", ["at", "frame", "hidden"]);
  const names = Object.keys(options.curves);
  const tone = (n) => `mx-c${n % 3} mx-d${Math.floor(n / 3)}`;
  const format = (x) => (Number.isInteger(x) ? String(x) : Number(x.toPrecision(3)).toString());
  const at = createDial(options.axis, { label: options.axis, min: 0, max: options.x.length - 1, step: 1, onInput: (n) => write({ at: n }) });
  const frame = options.settings ? createDial(options.setting, {
    label: options.setting, min: 0, max: options.settings.length - 1, step: 1, onInput: (n) => write({ frame: n }),
  }) : null;
  const ticks = names.map((name, n) => {
    const tick = createTick(name, (on) => write({ hidden: on ? model.get("hidden").filter((other) => other !== name) : [...model.get("hidden"), name] }), tone(n));
    tick.node.classList.add(...tone(n).split(" "));
    return tick;
  });
  const plot = createSvg("svg", { class: "mx-plot", role: "img" });
  let size = { width: 640, height: 260 };
  const list = create("table", { class: "mx-values" });
  const margin = { left: 58, right: 14, top: 12, bottom: 40 };
  const all = names.flatMap((name) => options.curves[name].flat()).concat(options.truth ?? []);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low) * 0.06 || 1;
  const scale = (v) => (options.log ? Math.log(v) : v);
  const x = (v) => margin.left + ((scale(v) - scale(options.x[0])) / (scale(options.x.at(-1)) - scale(options.x[0]))) * (size.width - margin.left - margin.right);
  const y = (v) => size.height - margin.bottom - ((v - low + room) / (high - low + 2 * room)) * (size.height - margin.top - margin.bottom);
  const path = (values) => `M${values.map((v, n) => `${x(options.x[n]).toFixed(1)},${y(v).toFixed(1)}`).join("L")}`;
  const step = (high - low) / 4;
  const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(step || 1))));

  const paint = () => {
    const [n, f, hidden] = [model.get("at"), model.get("frame"), model.get("hidden")];
    const here = options.x[n];
    const exact = options.truth?.[f];
    at.show(n, format(here));
    frame?.show(f, format(options.settings[f]));
    ticks.forEach(({ show }, k) => show(!hidden.includes(names[k])));
    const base = size.height - margin.bottom;
    setAttributes(plot, { viewBox: `0 0 ${size.width} ${size.height}` });
    const parts = [createSvg("line", { x1: margin.left, x2: size.width - margin.right, y1: base, y2: base })];
    for (let k = 0; k <= 4; k++) {
      const value = low + k * step;
      parts.push(createSvg("line", { x1: margin.left, x2: size.width - margin.right, y1: y(value), y2: y(value), class: "mx-grid" }),
        createSvg("text", { x: margin.left - 6, y: y(value) + 4, "text-anchor": "end" }, formatNumber(value, digits)));
    }
    const marks = options.x.filter((_, k) => k % Math.ceil(options.x.length / 8) === 0);
    marks.forEach((v) => parts.push(createSvg("text", { x: x(v), y: base + 17, "text-anchor": "middle" }, format(v))));
    parts.push(createSvg("text", { x: (margin.left + size.width) / 2, y: base + 35, "text-anchor": "middle" }, options.axis));
    const shown = names.filter((name) => !hidden.includes(name));
    const curves = shown.map((name) => createSvg("path", { class: `mx-curve mx-expert ${tone(names.indexOf(name))}`, d: path(options.curves[name][f]) }));
    const points = shown.map((name) => createSvg("circle", { class: `mx-dot ${tone(names.indexOf(name))}`, r: 6, cx: x(here), cy: y(options.curves[name][f][n]) }));
    if (exact !== undefined) curves.unshift(createSvg("path", { class: "mx-curve mx-truth", d: path(options.x.map(() => exact)) }));
    plot.replaceChildren(createSvg("g", { class: "mx-axes" }, ...parts), createSvg("line", { x1: x(here), x2: x(here), y1: margin.top, y2: base, class: "mx-needle" }), ...curves, ...points);
    const row = (name, value, gap) => create("tr", {}, create("th", { scope: "row" }, name), create("td", {}, formatNumber(value, 3)), exact === undefined ? null : create("td", {}, gap));
    list.replaceChildren(create("tr", {}, create("th", { scope: "col" }, `at ${options.axis} ${format(here)}`), create("th", { scope: "col" }, options.value),
      exact === undefined ? null : create("th", { scope: "col" }, options.below ? "gap" : "difference")),
    ...shown.map((name) => row(name, options.curves[name][f][n], formatNumber(exact - options.curves[name][f][n], 3))),
    ...(exact === undefined ? [] : [row("exact", exact, "\u2014")]));
    const text = `At ${options.axis} ${format(here)}${options.settings ? ` and ${options.setting} ${format(options.settings[f])}` : ""}: `
      + shown.map((name) => `${name} ${formatNumber(options.curves[name][f][n], 3)}`).join(", ") + (exact === undefined ? "." : `, exact ${formatNumber(exact, 3)}.`);
    plot.setAttribute("aria-label", `${options.alt} ${text}`);
    say(text);
  };
  const observer = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === 0) return;
    size = { width: Math.round(contentRect.width), height: Math.round(contentRect.height) };
    soon();
  });
  observer.observe(plot);
  onEnd(() => observer.disconnect());
  message.classList.add("mx-hidden"); // the table says it already
  return start([
    create("div", { class: "mx-buttons mx-between" }, create("div", { class: "mx-ticks mx-line" }, ...ticks.map(({ node }) => node),
      options.truth ? create("span", { class: "mx-key" }, create("span", { class: "mx-k-truth" }, "exact")) : null), reset()),
    plot, create("div", { class: "mx-dials" }, at.node, frame?.node ?? null), list, message].filter(Boolean), paint);
}
