// What both shells share: small DOM helpers, the model that stands in for a kernel,
// and the custom element that loads its weights when it scrolls into view.

function create(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function createSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  setAttributes(node, attributes);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
}

/** JupyterLab's command mode takes arrow keys unless the input itself says no. */
function createInput(attributes) {
  return create("input", { "data-lm-suppress-shortcuts": "true", ...attributes });
}

/** One choice of several, drawn as joined buttons; native radios bring the arrow keys. */
function createChoice(legend, options, onPick) {
  const name = `mx-${Math.random().toString(36).slice(2)}`;
  const inputs = options.map(({ value }) => createInput({ type: "radio", name, value }));
  const items = options.map(({ face, title }, n) =>
    create("label", { title: title ?? null }, inputs[n], create("span", {}, ...[face].flat())));
  inputs.forEach((input) => input.addEventListener("change", () => onPick(input.value)));
  const node = create("fieldset", { class: "mx-choice" },
    create("legend", {}, legend), create("div", { class: "mx-choice-row" }, ...items));
  const show = (value) => inputs.forEach((input) => { input.checked = input.value === value; });
  return { node, show };
}

function createButton(face, onClick, attributes = {}) {
  const button = create("button", {
    type: "button", class: "mx-button", "data-lm-suppress-shortcuts": "true", ...attributes,
  }, ...[face].flat());
  button.addEventListener("click", onClick);
  return button;
}

const MINUS = "\u2212";

function formatNumber(value, digits = 2) {
  if (!Number.isFinite(value)) return "\u2014";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** A read-out for screen readers that speaks once the reader stops moving. */
function createAnnouncer(wait = 600) {
  const node = create("p", { class: "mx-hidden", role: "status", "aria-live": "polite" });
  let timer = 0;
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (node.textContent !== text) node.textContent = text; }, wait);
  };
  return { node, say };
}

/** Draw at most once a frame; `now` draws at once, so that the first paint is complete. */
function createPainter(element, draw) {
  let frame = 0;
  const paint = () => {
    frame = 0;
    const start = performance.now();
    draw();
    element.dataset.ms = (performance.now() - start).toFixed(2);
  };
  return {
    now: paint,
    soon: () => { frame ||= requestAnimationFrame(paint); },
    stop: () => cancelAnimationFrame(frame),
  };
}

/** The part of anywidget's model that the explorers use, for a page without a kernel. */
function createModel(state) {
  const listeners = new Map();
  return {
    get: (key) => state[key],
    set: (key, value) => {
      if (JSON.stringify(state[key]) === JSON.stringify(value)) return;
      state[key] = value;
      for (const listener of listeners.get(`change:${key}`) ?? []) listener();
    },
    save_changes: () => {},
    on: (event, listener) => {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
    },
    off: (event, listener) => listeners.get(event)?.delete(listener),
  };
}

function bytesOfBase64(texts) {
  const parts = texts.map((text) => atob(text.trim()));
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) for (let n = 0; n < part.length; n++) bytes[at++] = part.charCodeAt(n);
  return new DataView(bytes.buffer);
}

function whenNear(element) {
  return new Promise((resolve) => {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      resolve();
    }, { rootMargin: "600px" });
    observer.observe(element);
  });
}

/** A script tag, because a page opened from a folder may not fetch. */
function loadScript(src) {
  return new Promise((resolve, reject) => {
    const script = create("script", { src });
    script.onload = resolve;
    script.onerror = () => reject(new Error(`The weights did not load: ${src}`));
    document.head.append(script);
  });
}

/** The weights of an explorer, which may come in several blocks: inline, or from scripts that are loaded when it is near. */
async function findWeights(element) {
  const inline = [...element.querySelectorAll("script.explorer-weights")];
  const keys = (element.dataset.weights ?? "").split(" ").filter(Boolean);
  if (inline.length) return bytesOfBase64(inline.map((script) => script.textContent));
  if (!keys.length) return null;
  await whenNear(element);
  const sources = element.dataset.src.split(" ");
  for (const [n, key] of keys.entries()) {
    if (!globalThis.mmvaeWeights?.[key]) await loadScript(sources[n]);
    if (!globalThis.mmvaeWeights?.[key]) throw new Error(`${sources[n]} holds no weights "${key}".`);
  }
  return bytesOfBase64(keys.map((key) => globalThis.mmvaeWeights[key]));
}

function defineExplorer(tag, render) {
  customElements.define(tag, class extends HTMLElement {
    async connectedCallback() {
      if (this.dataset.state) return;
      this.dataset.state = "waiting";
      try {
        const state = JSON.parse(this.querySelector("script.explorer-spec").textContent);
        const weights = await findWeights(this);
        if (weights) state.weights = weights;
        const stage = document.createElement("div");
        render({ model: createModel(state), el: stage, host: this });
        this.replaceChildren(stage);
        this.dataset.state = "live";
      } catch (error) {
        this.dataset.state = "failed";
        this.append(create("p", { class: "mx-alarm", role: "alert" },
          `This explorer could not start, so its picture stands still. ${error.message}`));
        console.error(error);
      }
    }
  });
}

/** Move a slider back and forth, or pick one thing after the other; report draw time and the time from input to painted frame. */
async function measureLatency(element, moves = 40) {
  const slider = element.querySelector("input[type=range]");
  const picks = [...element.querySelectorAll(".mx-frame, input[type=radio]")];
  const live = element.matches("[data-ms]") ? element : element.querySelector("[data-ms]");
  const samples = [];
  const slide = (value) => {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const before = slider?.value;
  for (let n = 0; n < moves; n++) {
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    if (slider) slide(Number(slider.min) + (0.2 + 0.6 * ((n * 7) % 11) / 11) * (slider.max - slider.min));
    else picks[(n * 7) % picks.length].click();
    await new Promise(requestAnimationFrame);
    while (live.dataset.urgent !== undefined) await new Promise(requestAnimationFrame); // a worker is at it
    await new Promise((resolve) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = resolve;
      channel.port2.postMessage(0);
    });
    samples.push({ draw: Number(live.dataset.ms), painted: performance.now() - start });
  }
  if (slider) slide(before);
  return samples;
}
