// Where decoding happens: small decoders on the page at once, large ones and sound in a worker, one after the other.

const HEAVY = 2e6; // multiplications of one decoding; below it a picture is there within a few milliseconds

function startWorker() {
  const source = `"use strict";
    const engine = (${mmvaeEngine})();
    const runs = {};
    let layers = {}, weights = null;
    onmessage = ({ data: { ticket, load, name, z, spectrum, scale } }) => {
      if (load) { ({ layers, weights } = load); return; }
      const values = spectrum ? engine.synthesise(spectrum, scale)
        : (runs[name] ??= engine.createDecoder(layers[name], weights))(z).slice();
      postMessage({ ticket, values }, [values.buffer]);
    };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  try {
    return new Worker(url);
  } catch {
    return null; // a page that forbids workers decodes by itself
  } finally {
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

/**
 * Runs the decoders of an explorer. `show(slot, name, z, paint)` calls paint with the values, at once or when they are there;
 * a slot that is asked again before its turn forgets the older question. Rank 0 goes first. While a question is open,
 * `data-pending` stands on `el`.
 */
function createStudio(el, model) {
  const spec = model.get("spec");
  const weights = unpackWeights(model.get("weights"), spec.values);
  const scale = model.get("options").sound;
  const runs = {};
  const waiting = new Map(); // slot -> question
  let worker; // undefined until it is needed, null where there is none
  let current = null;

  const here = (name, z) => (runs[name] ??= createDecoder(spec.decoders[name], weights))(z);
  const table = (name) => {
    const { start, rows, columns } = spec.tables[name];
    return Array.from({ length: rows }, (_, n) => Array.from(weights.subarray(start + n * columns, start + (n + 1) * columns)));
  };
  const mark = () => { // for tests and for the eye: what is still to come
    const open = [...waiting.values(), ...(current ? [current] : [])];
    setAttributes(el, {
      "data-pending": open.length ? String(open.length) : null,
      "data-urgent": open.some(({ rank }) => rank === 0),
    });
  };
  const answer = (values) => {
    const { paint } = current;
    current = null;
    paint(values);
    next();
    mark();
  };
  const next = () => {
    if (current || waiting.size === 0) return;
    const [slot, question] = [...waiting].reduce((a, b) => (b[1].rank < a[1].rank ? b : a));
    waiting.delete(slot);
    current = question;
    if (worker === undefined) {
      worker = startWorker();
      if (worker) {
        worker.onmessage = ({ data }) => { if (current?.ticket === data.ticket) answer(data.values); };
        worker.onerror = (event) => { // such as a policy of the page that shows only now
          event.preventDefault();
          worker = null;
          if (current) answerHere(current);
        };
        worker.postMessage({ load: { layers: spec.decoders, weights } });
      }
    }
    if (worker) worker.postMessage({ ticket: question.ticket, ...question.what });
    else setTimeout(() => answerHere(question));
  };
  const answerHere = ({ what: { name, z, spectrum } }) => answer(spectrum ? synthesise(spectrum, scale) : here(name, z));
  let tickets = 0;
  const ask = (slot, what, paint, rank = 1) => {
    waiting.set(slot, { ticket: ++tickets, what, paint, rank });
    next();
    mark();
  };
  return {
    here, table,
    isHeavy: (name) => spec.macs[name] > HEAVY,
    show: (slot, name, z, paint, rank) => {
      if (spec.macs[name] > HEAVY) ask(slot, { name, z: Array.from(z) }, paint, rank);
      else paint(here(name, z));
    },
    sound: (slot, spectrum, paint) => ask(slot, { spectrum: Float32Array.from(spectrum), scale }, paint, 2),
    stop: () => { worker?.terminate(); waiting.clear(); current = null; },
  };
}

let speaker = null;
/** Play samples once, at the loudness at which speech is comfortable; calls done at the end. Needs a press of a button before. */
async function play(samples, rate, done) {
  speaker?.stop();
  const context = (play.context ??= new AudioContext());
  if (context.state === "suspended") await context.resume();
  const buffer = context.createBuffer(1, samples.length, rate);
  const peak = samples.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  buffer.copyToChannel(samples.map((v) => (0.7 * v) / peak), 0);
  speaker = context.createBufferSource();
  speaker.buffer = buffer;
  speaker.connect(context.destination);
  speaker.onended = done;
  speaker.start();
}
