// Gaussian experts on one axis, the three ways to multiply them, and their mixture.

const PRIOR = { mean: 0, precision: 1 };
const PRECISION_EXPONENTS = [-4, 6]; // sliders run over powers of two
const TINY_PRECISION = 1e-9;

/**
 * The product of the present experts: "product", "prior" (times the prior) or
 * "quotient" (divided by the prior once less than there are experts).
 * Everything follows from the natural parameters, which add.
 */
function gaussianProduct({ means, precisions, present, form }) {
  const factors = means
    .map((mean, index) => ({ index, mean, precision: precisions[index], power: 1 }))
    .filter(({ index }) => present[index]);
  const priorPower = { product: 0, prior: 1, quotient: 1 - factors.length }[form];
  if (priorPower !== 0) factors.push({ index: "prior", ...PRIOR, power: priorPower });
  let precision = 0;
  let eta = 0;
  let constant = 0;
  for (const { mean, precision: t, power } of factors) {
    precision += power * t;
    eta += power * t * mean;
    constant += power * 0.5 * (Math.log(t / (2 * Math.PI)) - t * mean * mean);
  }
  const proper = precision > TINY_PRECISION;
  const shares = Object.fromEntries(
    factors.map(({ index, precision: t, power }) => [index, proper ? (power * t) / precision : NaN]));
  return {
    precision, eta, proper, shares, priorPower,
    count: factors.filter(({ index }) => index !== "prior").length,
    mean: proper ? eta / precision : NaN,
    variance: proper ? 1 / precision : NaN,
    logZ: proper ? 0.5 * Math.log((2 * Math.PI) / precision) + (eta * eta) / (2 * precision) + constant : NaN,
  };
}

/** KL between two Gaussians given by mean and precision, in nats. */
function gaussianKl(p, q) {
  const ratio = q.precision / p.precision;
  return 0.5 * (ratio - 1 - Math.log(ratio) + q.precision * (p.mean - q.mean) ** 2);
}

/**
 * The mean of the densities of the present experts, the prior where nobody is there. Its mean and variance are exact; it is
 * no Gaussian, so it has no precision to add up.
 */
function gaussianMixture({ means, precisions, present }) {
  const members = means.map((mean, index) => ({ index, mean, precision: precisions[index] })).filter(({ index }) => present[index]);
  const count = members.length;
  if (count === 0) members.push({ index: "prior", ...PRIOR });
  const average = (f) => members.reduce((sum, member) => sum + f(member), 0) / members.length;
  const mean = average((member) => member.mean);
  const variance = average(({ mean: mu, precision: t }) => 1 / t + (mu - mean) ** 2);
  return {
    form: "mixture", proper: true, count, mean, variance, precision: 1 / variance, eta: NaN, logZ: 0, priorPower: count === 0 ? 1 : 0,
    shares: Object.fromEntries(members.map(({ index }) => [index, 1 / members.length])),
    density: (z) => average((member) => density(z, member)),
  };
}

/** KL from a density on a grid to a Gaussian, in nats, by the trapezoid rule. */
function klOnGrid(p, gaussian, low = -12, high = 12, steps = 2400) {
  let sum = 0;
  for (let n = 0; n <= steps; n++) {
    const z = low + ((high - low) * n) / steps, value = p(z);
    if (value > 0) sum += value * (Math.log(value) - Math.log(Math.max(density(z, gaussian), 1e-300)));
  }
  return (sum * (high - low)) / steps;
}

function density(z, { mean, precision }) {
  return Math.sqrt(precision / (2 * Math.PI)) * Math.exp(-0.5 * precision * (z - mean) ** 2);
}

const peak = (gaussian) => density(gaussian.mean, gaussian);
const isWhole = (present) => present.every(Boolean);

const FORMS = {
  product: { name: "product", formula: ["\u220F q", "m"] },
  prior: { name: "with prior", formula: ["p \u00B7 \u220F q", "m"] },
  quotient: { name: "quotient", formula: ["\u220F q", "m", " / p", "|S|\u22121"] },
  mixture: { name: "mixture", formula: ["\u03A3 q", "m", " / |S|"] },
};

function formFace(form) {
  const { name, formula: [head, sub, tail, sup] } = FORMS[form];
  const formula = create("span", { class: "mx-formula", "aria-hidden": "true" }, head, create("sub", {}, sub));
  if (tail) formula.append(tail, ...(sup ? [create("sup", {}, sup)] : []));
  return [create("b", {}, name), formula];
}

/** The plot: axes, curves and the handles that carry each expert's mean and height. */
function createPlot({ count, limit, onDrag }) {
  const margin = { left: 34, right: 10, top: 12, bottom: 26 };
  const low = -limit - 1;
  const high = limit + 1;
  const heights = [0.6, 1, 1.6, 2, 3, 4, 6]; // halves that read well
  let size = { width: 640, height: 260 };
  let top = 1;
  let dragging = null;

  const axes = createSvg("g", { class: "mx-axes" });
  const area = createSvg("path", { class: "mx-area" });
  const prior = createSvg("path", { class: "mx-curve mx-prior" });
  const improper = createSvg("path", { class: "mx-curve mx-improper" });
  const result = createSvg("path", { class: "mx-curve mx-result" });
  const truth = createSvg("path", { class: "mx-curve mx-truth" });
  const curves = Array.from({ length: count }, (_, m) => createSvg("path", { class: `mx-curve mx-expert mx-c${m}` }));
  const handles = curves.map((_, m) => createSvg("g", { class: `mx-handle mx-c${m}`, "data-expert": m },
    createSvg("circle", { r: 22, class: "mx-touch" }), createSvg("circle", { r: 10, class: "mx-dot" }),
    createSvg("text", { dy: "0.35em", "text-anchor": "middle" }, String(m + 1))));
  const node = createSvg("svg", { class: "mx-plot", role: "img" },
    axes, area, prior, ...curves, improper, result, truth, ...handles);

  const x = (z) => margin.left + ((z - low) / (high - low)) * (size.width - margin.left - margin.right);
  const y = (p) => size.height - margin.bottom - (p / top) * (size.height - margin.top - margin.bottom);

  const path = (f) => {
    const steps = 240;
    const points = [];
    for (let n = 0; n <= steps; n++) {
      const z = low + ((high - low) * n) / steps;
      points.push(`${x(z).toFixed(1)},${clamp(y(f(z)), -50, size.height).toFixed(1)}`);
    }
    return `M${points.join("L")}`;
  };

  // The unnormalised product when no density exists: it climbs without end.
  const runaway = ({ precision, eta }) => {
    const log = (z) => -0.5 * precision * z * z + eta * z;
    let floor = Infinity;
    for (let n = 0; n <= 40; n++) floor = Math.min(floor, log(low + ((high - low) * n) / 40));
    return path((z) => 0.04 * top * Math.exp(Math.min(12, log(z) - floor)));
  };

  const drawAxes = () => {
    const base = size.height - margin.bottom;
    axes.replaceChildren(createSvg("line", { x1: x(low), x2: x(high), y1: base, y2: base }));
    for (let z = Math.ceil(low); z <= high; z++) {
      axes.append(createSvg("line", { x1: x(z), x2: x(z), y1: base, y2: base + 4 }),
        createSvg("text", { x: x(z), y: base + 18, "text-anchor": "middle" }, formatNumber(z, 0)));
    }
    for (const level of [0.5, 1]) {
      const at = y(level * top);
      axes.append(createSvg("line", { x1: x(low), x2: x(high), y1: at, y2: at, class: "mx-grid" }),
        createSvg("text", { x: margin.left - 6, y: at + 4, "text-anchor": "end" }, String(level * top)));
    }
  };

  const draw = (state, product, exact) => {
    const experts = state.means.map((mean, m) => ({ mean, precision: state.precisions[m] }));
    const shown = experts.filter((_, m) => state.present[m]);
    const all = [PRIOR, ...shown, ...(exact ? [exact] : []), ...(product.proper && !product.density ? [product] : [])];
    const tallest = 1.08 * Math.max(...all.map(peak));
    if (dragging === null) top = heights.find((level) => level >= tallest) ?? 8;
    setAttributes(node, { viewBox: `0 0 ${size.width} ${size.height}` });
    drawAxes();
    prior.setAttribute("d", path((z) => density(z, PRIOR)));
    node.classList.toggle("mx-prior-used", product.priorPower !== 0);
    experts.forEach((expert, m) => {
      curves[m].setAttribute("d", path((z) => density(z, expert)));
      handles[m].setAttribute("transform", `translate(${x(expert.mean)} ${y(peak(expert))})`);
      for (const part of [curves[m], handles[m]]) part.classList.toggle("mx-absent", !state.present[m]);
    });
    const curve = product.proper ? path(product.density ?? ((z) => density(z, product))) : "";
    result.setAttribute("d", curve);
    area.setAttribute("d", curve && `${curve}L${x(high)},${y(0)}L${x(low)},${y(0)}Z`);
    improper.setAttribute("d", product.proper || product.count === 0 ? "" : runaway(product));
    truth.setAttribute("d", exact ? path((z) => density(z, exact)) : "");
  };

  const dragTo = (event) => {
    const box = node.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * size.width;
    const down = ((event.clientY - box.top) / box.height) * size.height;
    const z = low + ((across - margin.left) / (size.width - margin.left - margin.right)) * (high - low);
    const height = ((size.height - margin.bottom - down) / (size.height - margin.top - margin.bottom)) * top;
    onDrag(dragging, clamp(z, -limit, limit), 2 * Math.PI * Math.max(height, 0.01) ** 2);
  };
  handles.forEach((handle, m) => {
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      dragging = m;
    });
    handle.addEventListener("pointermove", (event) => { if (dragging === m) dragTo(event); });
    for (const end of ["pointerup", "pointercancel"]) {
      handle.addEventListener(end, (event) => {
        if (dragging !== m) return;
        dragging = null;
        if (end === "pointerup") onDrag(m, null, null);
      });
    }
  });
  return { node, draw, resize: (width, height) => { size = { width, height }; } };
}

function createShare() {
  const bar = create("i");
  const text = create("span", { class: "mx-share-text" });
  const node = create("div", { class: "mx-share" }, create("div", { class: "mx-share-bar", "aria-hidden": "true" }, bar), text);
  const show = (share, absent) => {
    const known = Number.isFinite(share);
    text.textContent = known ? `${formatNumber(100 * share, 0)}%` : absent;
    bar.style.width = `${known ? Math.min(100, Math.abs(100 * share)) : 0}%`;
    node.classList.toggle("mx-negative", known && share < 0);
  };
  return { node, show };
}

function compareWithTruth(kl) {
  if (Number.isNaN(kl)) return "";
  if (kl < 5e-4) return " It equals the exact posterior.";
  return ` It misses the exact posterior by a KL of ${formatNumber(kl, 3)} nats.`;
}

function describeProduct(state, product, kl) {
  if (product.proper && product.count === 0) return `Every expert is absent, so only the prior is left.${compareWithTruth(kl)}`;
  if (product.proper) {
    const name = { product: "The product", prior: "The product with the prior", quotient: "The quotient", mixture: "The mixture" }[state.form];
    return `${name} has mean ${formatNumber(product.mean, 3)} and variance ${formatNumber(product.variance, 3)}.${compareWithTruth(kl)}`;
  }
  if (product.count === 0) return "Nothing to multiply: every expert is absent and the prior has no vote.";
  const times = { [-1]: "once", [-2]: "twice" }[product.priorPower];
  return `The precision ${formatNumber(product.precision)} is not above zero. `
    + `The prior, divided out ${times}, outweighs the experts.`;
}

function renderExpertPlayground({ model, el }) {
  const keys = ["means", "precisions", "present", "form"];
  const options = model.get("options");
  const read = () => Object.fromEntries(keys.map((key) => [key, model.get(key)]));
  const initial = structuredClone(read());
  const count = initial.means.length;
  const write = (changes) => {
    for (const [key, value] of Object.entries(changes)) model.set(key, value);
    model.save_changes();
  };
  const replaced = (key, m, value) => ({ [key]: model.get(key).map((old, n) => (n === m ? value : old)) });
  const bounds = PRECISION_EXPONENTS.map((exponent) => 2 ** exponent);

  const choice = createChoice("Combine the experts by",
    Object.keys(FORMS).map((value) => ({ value, face: formFace(value) })), (form) => write({ form }));
  const plot = createPlot({
    count, limit: options.limit,
    onDrag: (m, mean, precision) => {
      if (mean === null) return painter.soon();
      return write({ ...replaced("means", m, mean), ...replaced("precisions", m, clamp(precision, ...bounds)) });
    },
  });

  const rows = options.labels.map((label, m) => {
    const present = createInput({ type: "checkbox", class: `mx-c${m}` });
    present.addEventListener("change", () => write(replaced("present", m, present.checked)));
    const mean = createSlider({
      label: `mean of ${label}`, min: -options.limit, max: options.limit, step: 0.05, className: `mx-c${m}`,
      onInput: (value) => write(replaced("means", m, value)),
    });
    const precision = createSlider({
      label: `precision of ${label}`, min: PRECISION_EXPONENTS[0], max: PRECISION_EXPONENTS[1], step: 0.05, className: `mx-c${m}`,
      onInput: (value) => write(replaced("precisions", m, 2 ** value)),
    });
    const share = createShare();
    const node = create("div", { class: `mx-row mx-c${m}` },
      create("label", { class: "mx-name" }, present, create("span", { class: "mx-badge", "aria-hidden": "true" }, String(m + 1)),
        create("span", {}, label)),
      create("div", { class: "mx-field" }, create("span", { class: "mx-tag", "aria-hidden": "true" }, "mean \u03BC"), mean.input, mean.value),
      create("div", { class: "mx-field" }, create("span", { class: "mx-tag", "aria-hidden": "true" }, "precision T"), precision.input, precision.value),
      share.node);
    const show = (state, product) => {
      present.checked = state.present[m];
      node.classList.toggle("mx-absent", !state.present[m]);
      mean.show(state.means[m], formatNumber(state.means[m]));
      precision.show(Math.log2(state.precisions[m]), formatNumber(state.precisions[m]));
      share.show(product.shares[m], state.present[m] ? "\u2014" : "absent");
    };
    return { node, show };
  });
  const priorShare = createShare();
  const priorRow = create("div", { class: "mx-row mx-row-prior" },
    create("div", { class: "mx-name" }, create("span", { class: "mx-dash", "aria-hidden": "true" }), create("span", {}, "prior")),
    create("div", { class: "mx-field mx-note" }, "mean 0, precision 1"),
    create("div", { class: "mx-field mx-note mx-prior-note" }), priorShare.node);

  const hasTruth = Object.keys(options.truth).length > 0;
  const tiles = createTiles([
    "precision T", ["\u03B7 = \u03A3 T", create("sub", {}, "m"), "\u03BC", create("sub", {}, "m")], "mean \u03B7/T", "variance 1/T", "log Z",
    ...(hasTruth ? ["KL to exact"] : [])]);
  const message = create("p", { class: "mx-message" });
  const announcer = createAnnouncer();
  const reset = createButton("Reset", () => write(structuredClone(initial)));
  const key = create("p", { class: "mx-key", "aria-hidden": "true" },
    create("span", { class: "mx-k-result" }, "result"), create("span", { class: "mx-k-prior" }, "prior"),
    hasTruth ? create("span", { class: "mx-k-truth" }, "exact posterior") : null,
    create("span", { class: "mx-k-hint" }, "drag the numbered points"));

  el.classList.add("mmvae-explorer", "mx-playground");
  el.replaceChildren(create("div", { class: "mx-body" },
    create("div", { class: "mx-head" }, choice.node, reset),
    plot.node, key, message,
    create("div", { class: "mx-rows" },
      create("div", { class: "mx-row mx-row-head", "aria-hidden": "true" }, create("span", {}, "expert"), create("span", {}, "mean \u03BC"),
        create("span", {}, "precision T (log scale)"), create("span", {}, "vote share")),
      ...rows.map(({ node }) => node), priorRow),
    tiles.node, announcer.node));

  const draw = () => {
    const state = read();
    const product = state.form === "mixture" ? gaussianMixture(state) : gaussianProduct(state);
    const subset = state.present.flatMap((here, m) => (here ? [m] : [])).join(",");
    const pair = options.truth[subset];
    const exact = pair ? { mean: pair[0], precision: pair[1] } : null;
    const kl = !exact || !product.proper ? NaN : product.density ? klOnGrid(product.density, exact) : gaussianKl(product, exact);
    const text = describeProduct(state, product, kl);
    choice.show(state.form);
    plot.draw(state, product, exact);
    rows.forEach(({ show }) => show(state, product));
    priorShare.show(product.shares.prior ?? NaN, product.priorPower === 0 ? "no vote" : "\u2014");
    priorRow.classList.toggle("mx-absent", product.priorPower === 0);
    priorRow.querySelector(".mx-prior-note").textContent = product.priorPower === 0 ? "not used"
      : product.priorPower > 0 ? "multiplied in once" : `divided out \u00D7 ${-product.priorPower}`;
    tiles.show([product.density ? "\u2014" : formatNumber(product.precision), formatNumber(product.eta), formatNumber(product.mean, 3), formatNumber(product.variance, 3),
      formatNumber(product.logZ, 3), formatNumber(Math.max(kl, 0), 3)].slice(0, hasTruth ? 6 : 5));
    el.classList.toggle("mx-bad", !product.proper);
    message.replaceChildren(...(product.proper ? [] : [create("strong", {}, "\u26A0 Improper. ")]), text);
    plot.node.setAttribute("aria-label", `Densities of ${count} experts and their product. ${text}`);
    announcer.say(product.proper ? text : `Improper. ${text}`);
  };
  const painter = createPainter(el, draw);
  keys.forEach((name) => model.on(`change:${name}`, painter.soon));
  const observer = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === 0) return;
    plot.resize(Math.round(contentRect.width), Math.round(contentRect.height));
    painter.now();
  });
  observer.observe(plot.node);
  painter.now();
  return () => {
    observer.disconnect();
    painter.stop();
    keys.forEach((name) => model.off(`change:${name}`, painter.soon));
  };
}
