// The lattice of subsets that M2VAE walks.

const choose = (n, k) => Array.from({ length: k }, (_, i) => (n - i) / (i + 1)).reduce((a, b) => a * b, 1);
/** One over what the weight of a subset of this size is: omega = 1 / (|S| C(M, |S|)). */
const omegaBelow = (size, count) => Math.round(size * choose(count, size));

function renderSubsetLattice(context) {
  const { model } = context;
  const options = model.get("options");
  const { message, write, say, reset, start, onEnd } = createExplorer(context, "mx-lattice", ["modalities", "subset"]);
  const count = createChoice("Modalities", Array.from({ length: options.most - 1 }, (_, n) => ({ value: String(n + 2), face: String(n + 2) })),
    (value) => write({ modalities: Number(value), subset: Array.from({ length: Number(value) }, (_, m) => m) }));
  const plot = create("div", { class: "mx-hasse" });
  const lines = createSvg("svg", { class: "mx-hasse-lines", "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 100 100" });
  const terms = create("ul", { class: "mx-terms" });
  const tiles = createTiles(["weight \u03C9(S)", "encoders in all", "KL terms in all", "decodings"]);
  const label = (s) => s.map((m) => options.names[m]).join("");
  let built = 0, nodes = [];
  const build = (M) => {
    built = M;
    const all = Array.from({ length: 2 ** M - 1 }, (_, n) => Array.from({ length: M }, (_, m) => m).filter((m) => ((n + 1) >> m) & 1));
    const place = (s) => {
      const level = all.filter((t) => t.length === s.length).sort((a, b) => label(a).localeCompare(label(b)));
      return [(100 * (level.indexOf(s) + 0.5)) / level.length, (100 * (M - s.length + 0.5)) / M];
    };
    nodes = all.map((s) => {
      const below = omegaBelow(s.length, M);
      const button = createButton([create("b", {}, label(s)), create("span", { class: "mx-weight" }, below === 1 ? "1" : `1/${below}`)],
        () => write({ subset: s }), { class: "mx-frame mx-node", "aria-label": `subset ${label(s)}, weight 1 over ${below}` });
      const [x, y] = place(s);
      button.style.left = `${x}%`;
      button.style.top = `${y}%`;
      return { s, button, at: [x, y] };
    });
    lines.replaceChildren(...nodes.flatMap(({ s, at: [x, y] }) => nodes.filter(({ s: t }) => t.length === s.length - 1 && t.every((m) => s.includes(m)))
      .map(({ s: t, at: [u, v] }) => createSvg("line", { x1: x, y1: y, x2: u, y2: v, "data-from": s.join(), "data-to": t.join(), "vector-effect": "non-scaling-stroke" }))));
    plot.style.setProperty("--mx-levels", M);
    plot.replaceChildren(lines, ...nodes.map(({ button }) => button));
  };
  const paint = () => {
    const M = model.get("modalities"), S = model.get("subset");
    if (built !== M) build(M);
    count.show(String(M));
    const chosen = S.join();
    nodes.forEach(({ s, button }) => {
      button.setAttribute("aria-pressed", String(s.join() === chosen));
      button.classList.toggle("mx-part", s.every((m) => S.includes(m)));
    });
    for (const line of lines.children) line.classList.toggle("mx-on", line.dataset.from === chosen);
    const q = (s) => ["q(z | ", create("i", {}, label(s)), ")"];
    const pairs = S.length > 1 ? S.map((m) => S.filter((other) => other !== m)) : [];
    const item = (...parts) => create("li", {}, ...parts.flat());
    terms.replaceChildren(
      item(`+ E[ log p(${S.map((m) => options.names[m]).join(", ")} | z) ] under `, q(S)),
      item("\u2212 KL( ", q(S), " \u2016 p(z) )"),
      ...pairs.map((s) => item("\u2212 KL( ", q(S), " \u2016 ", q(s), " )")));
    const below = omegaBelow(S.length, M);
    const given = options.values[chosen];
    tiles.show([below === 1 ? "1" : `1/${below}`, String(2 ** M - 1), String(M * 2 ** (M - 1) - M), String(M * 2 ** (M - 1))]);
    const orders = Array.from({ length: M - S.length }, (_, n) => n + 1).reduce((a, b) => a * b, 1);
    const way = S.length === M ? "the walk begins here" : `${orders === 1 ? "one order of removal leads" : `${orders} orders of removal lead`} here from all ${M}`;
    say(`Subset ${label(S)} has the weight ${below === 1 ? "1" : `1/${below}`}: ${way}, and its terms are ${pairs.length + 2}.`
      + `${given === undefined ? "" : ` Its J is ${formatNumber(given, 3)} nats, and it adds ${formatNumber(given / below, 3)} to the bound.`}`);
  };
  return start([
    create("div", { class: "mx-head" }, count.node, reset()),
    create("div", { class: "mx-main mx-main-even" }, plot,
      create("div", { class: "mx-side" }, create("p", { class: "mx-caption" }, "What the chosen subset adds, J(S)"), terms)),
    message, tiles.node], paint);
}
