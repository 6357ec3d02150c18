// What decoders give, made visible: pictures, spoken words, written words, labels.

const GLIDE_MS = 320;
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Dark to bright through violet and orange, even in lightness, for spectra and matrices. */
const HEAT = [[10, 8, 28], [71, 22, 102], [148, 44, 99], [221, 81, 58], [252, 165, 50], [250, 245, 180]];
function heat(share, target, at) {
  const place = clamp(share, 0, 1) * (HEAT.length - 1);
  const n = Math.min(HEAT.length - 2, Math.floor(place));
  for (let c = 0; c < 3; c++) target[at + c] = HEAT[n][c] + (place - n) * (HEAT[n + 1][c] - HEAT[n][c]);
  target[at + 3] = 255;
}

/** Values in [0, 1] as a picture, [1 or 3, height, width], on a canvas of that size. */
function paintPicture(canvas, values) {
  const context = canvas.getContext("2d");
  const pixels = canvas.width * canvas.height;
  const picture = (canvas.mxPicture ??= context.createImageData(canvas.width, canvas.height));
  const colours = values.length === 3 * pixels;
  for (let n = 0; n < pixels; n++) {
    for (let c = 0; c < 3; c++) picture.data[4 * n + c] = Math.round(255 * values[colours ? c * pixels + n : n]);
    picture.data[4 * n + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

const SPEECH_RANGE = [-0.8, 2.6]; // of normalised log-mel: silence to loud
/** A log-mel spectrum [frames, bins], time to the right and high voices above. */
function paintSpectrum(canvas, values) {
  const context = canvas.getContext("2d");
  const { width: frames, height: bins } = canvas;
  const picture = (canvas.mxPicture ??= context.createImageData(frames, bins));
  const [low, high] = SPEECH_RANGE;
  for (let t = 0; t < frames; t++) {
    for (let k = 0; k < bins; k++) heat((values[t * bins + k] - low) / (high - low), picture.data, 4 * ((bins - 1 - k) * frames + t));
  }
  context.putImageData(picture, 0, 0);
}

function paintWave(canvas, samples) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const peak = samples.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let n = Math.floor((x * samples.length) / width); n < ((x + 1) * samples.length) / width; n++) {
      low = Math.min(low, samples[n]); high = Math.max(high, samples[n]);
    }
    context.fillRect(x, (height / 2) * (1 - high / peak), 1, Math.max(1, ((high - low) / peak) * (height / 2)));
  }
}

function rankClasses(probabilities) {
  return Array.from(probabilities, (p, n) => ({ p, n })).sort((a, b) => b.p - a.p);
}

function createBars(name, classes, separate) {
  const bars = classes.map((face) => {
    const bar = create("i");
    const node = create("div", { class: "mx-bar" }, create("span", {}, face), create("div", {}, bar));
    return { node, bar };
  });
  const node = create("div", { class: `mx-bars${separate ? " mx-separate" : ""}`, role: "img" },
    create("p", { class: "mx-caption", "aria-hidden": "true" }, name), ...bars.map((bar) => bar.node));
  const show = (probabilities) => {
    const [{ n: best }] = rankClasses(probabilities);
    bars.forEach(({ node: row, bar }, n) => {
      bar.style.width = `${(100 * probabilities[n]).toFixed(1)}%`;
      row.classList.toggle("mx-best", separate ? probabilities[n] > 0.5 : n === best);
    });
    node.setAttribute("aria-label", `${name}: ${rankClasses(probabilities).slice(0, 3)
      .map(({ p, n }) => `${classes[n]} ${formatNumber(p)}`).join(", ")}`);
  };
  return { node, show };
}

/** The words of [positions, vocabulary] scores, up to the one that ends a caption. */
function readWords(scores, [positions, vocabulary], { words, end }) {
  const found = [];
  for (let n = 0; n < positions; n++) {
    let best = 0;
    for (let w = 1; w < vocabulary; w++) if (scores[n * vocabulary + w] > scores[n * vocabulary + best]) best = w;
    if (end.includes(words[best])) break;
    found.push(words[best]);
  }
  return found.join(" ");
}

/** A still surface for one decoded item, and the function that paints it: for strips, grids and the large picture alike. */
function createSurface(info) {
  if (info.kind === "image") {
    const canvas = create("canvas", { width: info.shape[2], height: info.shape[1], "aria-hidden": "true" });
    return { node: canvas, show: (values) => paintPicture(canvas, values) };
  }
  if (info.kind === "speech") {
    const canvas = create("canvas", { width: info.shape[0], height: info.shape[1], class: "mx-spectrum", "aria-hidden": "true" });
    return { node: canvas, show: (values) => paintSpectrum(canvas, values) };
  }
  const node = create("span", { class: "mx-words" });
  const text = info.kind === "words" ? (values) => readWords(values, info.shape, info)
    : (values) => info.names[rankClasses(values)[0].n];
  return { node, show: (values) => { node.textContent = text(values); } };
}

/** The large form of one modality: picture, spectrum with sound, sentence or bars, with its name above and words for those who cannot see it. */
function createOutput(name, info, studio, rate) {
  let text = "";
  if (info.kind === "bars") {
    const bars = createBars(name, info.names, info.separate);
    const show = (values) => {
      bars.show(values);
      const [{ p, n }] = rankClasses(values);
      const on = info.names.filter((_, k) => values[k] > 0.5);
      text = info.separate ? `${name}: ${on.join(", ") || "none"}.` : `Decoded as ${info.names[n]}, probability ${p > 0.995 ? "above 0.99" : formatNumber(p)}.`;
    };
    return { node: bars.node, show, describe: () => text };
  }
  const surface = createSurface(info);
  const caption = create("p", { class: "mx-caption", "aria-hidden": "true" }, name);
  const node = create("div", { class: `mx-output mx-output-${info.kind}` }, caption, surface.node);
  if (info.kind === "words") {
    return { node, show: (values) => { surface.show(values); text = `${name}: ${surface.node.textContent || "no word"}.`; }, describe: (only) => (only ? text : "") }; // the sentence stands there already
  }
  surface.node.classList.add("mx-picture");
  surface.node.removeAttribute("aria-hidden");
  setAttributes(surface.node, { role: "img" });
  if (info.kind === "image") {
    const show = (values) => {
      surface.show(values);
      text = `Mean brightness ${formatNumber(values.reduce((a, b) => a + b, 0) / values.length)}.`;
      surface.node.setAttribute("aria-label", `${info.alt ?? `Decoded ${name}.`} ${text}`);
    };
    return { node, show, describe: (only) => (only ? text : "") , canvas: surface.node };
  }
  const wave = create("canvas", { class: "mx-wave", width: 280, height: 44, role: "img", "aria-label": "waveform of the decoded sound" });
  const button = createButton(["\u25B6 Play"], () => {
    button.disabled = true;
    const samples = node.mxSamples;
    const done = () => { button.disabled = false; };
    if (samples) play(samples, rate, done).catch(done);
    else studio.sound(node, latest, (made) => { keep(made); play(made, rate, done).catch(done); });
  }, { class: "mx-button mx-play", "aria-label": `Play the decoded ${name}` });
  node.append(wave, button);
  let latest = null, timer = 0;
  const keep = (samples) => { node.mxSamples = samples; paintWave(wave, samples); };
  const show = (values) => {
    surface.show(values);
    latest = Float32Array.from(values);
    node.mxSamples = null;
    const [frames, bins] = info.shape;
    let sounding = 0;
    for (let t = 0; t < frames; t++) if (Math.max(...latest.subarray(t * bins, (t + 1) * bins)) > 0) sounding = t + 1;
    text = `${name} of ${formatNumber(sounding / 100)} s.`;
    surface.node.setAttribute("aria-label", `Log-mel spectrum, decoded ${text}`);
    clearTimeout(timer); // the sound is made once the hand rests
    timer = setTimeout(() => { if (node.isConnected) studio.sound(node, latest, keep); }, 350);
  };
  return { node, show, describe: () => text, canvas: surface.node };
}

/** Sliders, their values beside them. */
function createSlider({ label, min, max, step, className = "", onInput }) {
  const input = createInput({ type: "range", min, max, step, class: className, "aria-label": label });
  const value = create("output", { class: "mx-value" });
  input.addEventListener("input", () => onInput(Number(input.value)));
  const show = (position, text) => {
    if (Number(input.value) !== position) input.value = position;
    input.setAttribute("aria-valuetext", text);
    value.textContent = text;
  };
  return { input, value, show };
}

/** A row of one slider: its name, the slider, its value. */
function createDial(face, options) {
  const slider = createSlider(options);
  const node = create("div", { class: "mx-dial" }, create("span", { class: "mx-dial-name", "aria-hidden": "true" }, ...[face].flat()), slider.input, slider.value);
  return { node, show: slider.show, input: slider.input };
}

function createTiles(names) {
  const values = names.map(() => create("dd"));
  const node = create("dl", { class: "mx-tiles simple" }, // "simple": the book's theme leaves such a list alone
    ...names.map((name, n) => create("div", {}, create("dt", {}, ...[name].flat()), values[n])));
  return { node, show: (texts) => texts.forEach((text, n) => { values[n].textContent = text; }) };
}

/** A box to tick. */
function createTick(face, onChange, className = "") {
  const input = createInput({ type: "checkbox", class: className });
  input.addEventListener("change", () => onChange(input.checked));
  return { node: create("label", { class: "mx-tick" }, input, create("span", {}, face)), show: (value) => { input.checked = value; } };
}

/** Buttons with a decoded item on each; `show(n, values)` paints one, `press` marks those that are chosen. */
function createTray(infos, faces, onPick, className = "") {
  const frames = faces.map((face, n) => {
    const surface = createSurface(infos[n] ?? infos);
    const button = createButton([surface.node, ...(face.text ? [create("span", {}, face.text)] : [])], () => onPick(n),
      { class: "mx-frame", "aria-label": face.label });
    return { surface, button };
  });
  return {
    node: create("div", { class: `mx-frames ${className}`, style: `--mx-columns:${faces.length}` }, ...frames.map(({ button }) => button)),
    frames,
    show: (n, values) => frames[n].surface.show(values),
    press: (chosen) => frames.forEach(({ button }, n) => button.setAttribute("aria-pressed", String(n === chosen))),
  };
}

/** What every explorer with decoders shares: a painter, the read-out, the write to the model, and their end. */
function createExplorer({ model, el }, className, keys) {
  const announcer = createAnnouncer();
  const message = create("p", { class: "mx-message" });
  const initial = Object.fromEntries(keys.map((key) => [key, structuredClone(model.get(key))]));
  const write = (changes) => {
    for (const [key, value] of Object.entries(changes)) model.set(key, value);
    model.save_changes();
  };
  let painter = null;
  const ends = [];
  return {
    message, write, initial,
    say: (text) => { if (message.textContent !== text) message.textContent = text; announcer.say(text); },
    reset: (act = () => {}) => createButton("Reset", () => { act(); write(structuredClone(initial)); painter.soon(); }, { class: "mx-button mx-reset" }),
    soon: () => painter?.soon(),
    onEnd: (act) => ends.push(act),
    start: (parts, draw) => {
      el.classList.add("mmvae-explorer", className);
      el.replaceChildren(create("div", { class: "mx-body" }, ...parts, announcer.node));
      painter = createPainter(el, draw);
      keys.forEach((key) => model.on(`change:${key}`, painter.soon));
      painter.now();
      return () => {
        painter.stop();
        keys.forEach((key) => model.off(`change:${key}`, painter.soon));
        ends.forEach((end) => end());
      };
    },
  };
}

/** Numbers that look random and are the same every time: normal draws from a seed. */
function createNormal(seed) {
  let state = (seed * 2654435761) >>> 0;
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

/** The outputs of several decoders side by side, and what they say together. */
function createOutputs(options, studio) {
  const outputs = Object.entries(options.outputs).map(([name, info]) => [name, createOutput(name, { ...info, alt: options.alt }, studio, options.sound.rate)]);
  const node = create("div", { class: "mx-outputs mx-many" }, ...outputs.map(([, output]) => output.node));
  /** Decode everything: `latent(name)` gives what each reads; `said` is told when one is there. */
  const show = (latent, said) => {
    for (const [name, output] of outputs) {
      studio.show(`large/${name}`, name, latent(name), (values) => {
        output.show(values);
        said(outputs.map(([, each]) => each.describe(outputs.length === 1)).filter(Boolean).join(" "));
      }, 0);
    }
  };
  return { node, show };
}

/** The sliders of a private latent, and the button that jumps to another style. */
function createStyleDials(options, model, write) {
  const dials = options.dims.map((dim) => createDial(["style ", create("sub", {}, String(dim))], {
    label: `style dimension ${dim}`, min: -options.limit, max: options.limit, step: 0.05,
    onInput: (value) => write({ z: model.get("z").map((old, n) => (n === dim ? value : old)) }),
  }));
  let turn = 0;
  const seeded = () => {
    const { normal } = createNormal(++turn);
    return model.get("z").map(normal);
  };
  const buttons = [createButton("From the prior", () => write({ z: seeded() }))];
  if (options.others.length) {
    buttons.unshift(createButton("Another style", () => { turn++; write({ z: options.others[turn % options.others.length].slice() }); }));
  }
  return {
    buttons,
    node: create("div", { class: "mx-dials" }, ...dials.map(({ node }) => node)),
    show: () => dials.forEach(({ show }, n) => {
      const value = model.get("z")[options.dims[n]];
      show(value, formatNumber(value));
    }),
    restart: () => { turn = 0; },
  };
}
