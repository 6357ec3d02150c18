// Any content with any style: a swap grid whose margins are the sources, and all modalities of the cell that is picked.

function renderStyleMixer(context) {
  const { model, el } = context;
  const options = model.get("options");
  const studio = createStudio(el, model);
  const { message, write, initial, say, reset, start, onEnd } =
    createExplorer(context, "mx-mixer", ["target", "source", "columns", "rows", "column", "row", "styles", "nudge"]);
  onEnd(studio.stop);
  const shared = Object.fromEntries(options.sources.map((name) => [name, studio.table(`shared/${name}`)]));
  const styled = Object.keys(options.widest);
  const priv = Object.fromEntries(styled.map((name) => [name, studio.table(`private/${name}`)]));
  const names = Object.keys(options.outputs);
  const many = options.targets.length > 1;

  /** The style of one row in a modality: an item's, or a draw from the prior. */
  const style = (name, seed, nudged) => {
    if (!priv[name]) return [];
    const width = priv[name][0].length;
    let z = priv[name][seed % priv[name].length];
    if (model.get("styles") === "prior") {
      const { normal } = createNormal(seed + 1 + 1000 * styled.indexOf(name));
      z = Array.from({ length: width }, normal);
    }
    if (!nudged) return z;
    const [a, b] = options.widest[name];
    return z.map((value, n) => value + (n === a ? model.get("nudge")[0] : 0) + (n === b && b !== a ? model.get("nudge")[1] : 0));
  };
  const content = (item) => shared[model.get("source")][item];
  const latent = (name, seed, item, nudged) => [...style(name, seed, nudged), ...content(item)];

  const radio = (legend, key, list, faces = list) => createChoice(legend, list.map((value, n) => ({ value, face: faces[n] })),
    (value) => write({ [key]: value }));
  const choices = [
    ...(many ? [["target", radio("Grid of", "target", options.targets)]] : []),
    ...(options.sources.length > 1 ? [["source", radio("Content from", "source", options.sources)]] : []),
    ["styles", radio("Styles from", "styles", ["items", "prior"], ["held-out items", "the prior"])],
  ];
  let turn = 0;
  const draw = (key, spread) => {
    turn++;
    const { uniform } = createNormal(turn * 7 + key.length);
    const byClass = new Map();
    options.labels.forEach((label, n) => byClass.set(label, [...(byClass.get(label) ?? []), n]));
    const classes = [...byClass.keys()];
    const first = Math.floor(uniform() * classes.length);
    write({ [key]: model.get(key).map((old, n) => {
      const items = spread ? byClass.get(classes[(first + n) % classes.length]) : options.labels.map((_, k) => k);
      return items[Math.floor(uniform() * items.length)];
    }) });
  };
  const buttons = create("div", { class: "mx-buttons" },
    createButton("Other contents", () => draw("columns", true)), createButton("Other styles", () => draw("rows", false)),
    reset(() => { turn = 0; }));

  const rowCount = initial.rows.length, columnCount = initial.columns.length;
  let grid = null;
  const holder = create("div", { class: "mx-swap", style: `--mx-columns:${columnCount}` });
  const build = (target) => { // the surfaces depend on the modality
    const info = options.outputs[target];
    const contentInfo = options.outputs[model.get("source")] && options.outputs[model.get("source")].kind !== "bars" ? options.outputs[model.get("source")] : info;
    const head = (text) => create("span", { class: "mx-swap-note" }, text);
    const tops = initial.columns.map((_, c) => createSurface(contentInfo)), sides = initial.rows.map((_, r) => createSurface(info));
    const cells = initial.rows.map((_, r) => createTray(info, initial.columns.map((_, c) => ({ label: `style ${r + 1} with content ${c + 1}` })),
      (c) => write({ row: r, column: c })));
    const parts = [head("style \u2193 content \u2192"), ...tops.map(({ node }) => create("div", { class: "mx-source" }, node))];
    cells.forEach((tray, r) => parts.push(create("div", { class: "mx-source" }, sides[r].node), ...tray.frames.map(({ button }) => button)));
    holder.replaceChildren(...parts);
    grid = { target, source: model.get("source"), contentName: contentInfo === info ? target : model.get("source"), tops, sides, cells, drawn: "" };
  };

  const outputs = createOutputs(options, studio);
  const dials = ["first", "second"].map((word, n) => createDial(`style, ${word} way`, {
    label: `move the style along its ${word} widest dimension`, min: -3, max: 3, step: 0.05,
    onInput: (value) => write({ nudge: model.get("nudge").map((old, k) => (k === n ? value : old)) }),
  }));

  const paint = () => {
    const [target, source, columns, rows, styles] = ["target", "source", "columns", "rows", "styles"].map((key) => model.get(key));
    const [row, column] = [Math.min(model.get("row"), rowCount - 1), Math.min(model.get("column"), columnCount - 1)];
    choices.forEach(([key, { show }]) => show(model.get(key)));
    if (grid?.target !== target || grid.source !== source) build(target);
    outputs.show((name) => latent(name, rows[row], columns[column], name === target), (text) =>
      say(`Content of item ${columns[column]}${options.labels[columns[column]] !== undefined ? `, class ${options.labels[columns[column]]}` : ""}, `
        + `${styles === "prior" ? "a style from the prior" : `style of item ${rows[row]}`}. ${text}`));
    const sources = JSON.stringify([target, source, columns, rows, styles]);
    if (grid.drawn !== sources) {
      grid.drawn = sources;
      const { contentName, tops, sides, cells } = grid;
      columns.forEach((item, c) => studio.show(`top/${c}`, contentName, [...(priv[contentName] ? priv[contentName][item] : []), ...content(item)], tops[c].show));
      rows.forEach((seed, r) => {
        studio.show(`side/${r}`, target, latent(target, seed, styles === "prior" ? columns[0] : seed % options.items), sides[r].show);
        columns.forEach((item, c) => studio.show(`cell/${r}/${c}`, target, latent(target, seed, item), (values) => cells[r].show(c, values)));
      });
    }
    grid.cells.forEach((tray, r) => tray.press(r === row ? column : -1));
    dials.forEach(({ show }, n) => show(model.get("nudge")[n], formatNumber(model.get("nudge")[n])));
  };
  return start([
    create("div", { class: "mx-controls" }, ...choices.map(([, { node }]) => node), buttons),
    create("div", { class: "mx-main mx-main-grid" }, holder,
      create("div", { class: "mx-side" }, outputs.node, create("div", { class: "mx-dials" }, ...dials.map(({ node }) => node)))),
    message], paint);
}
