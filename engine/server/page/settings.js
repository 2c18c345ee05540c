// Sampling settings: their form, what is kept of them, what they add to a request.
//
// An empty field is not sent: the server's default holds, which may be the model's own.
import {byId, element, readStored, writeStored} from './dom.js';

const kStoreKey = 'augur.settings';

// The only list of the fields. `name` is the request's field.
const kFields = [
  {name: 'temperature', label: 'Temperature', kind: 'number', min: 0, max: 100, step: 0.05,
   help: '0 always takes the likeliest token; higher is more varied. Usual: 0 to 1.5.'},
  {name: 'top_p', label: 'Top p', kind: 'number', min: 0.0001, max: 1, step: 0.01,
   help: 'Only the likeliest tokens that together have this probability. 1: all.'},
  {name: 'top_k', label: 'Top k', kind: 'integer', min: -1, max: 2147483647,
   help: 'Only so many of the likeliest tokens. 0 or -1: all.'},
  {name: 'min_p', label: 'Min p', kind: 'number', min: 0, max: 1, step: 0.01,
   help: 'Only tokens at least this probable, measured against the likeliest. 0: all.'},
  {name: 'max_tokens', label: 'Max tokens', kind: 'integer', min: 1, max: 2147483647,
   help: 'The answer ends after so many tokens. Empty: as the server has it; in chat, as far as ' +
       'the context reaches.'},
  {name: 'seed', label: 'Seed', kind: 'integer', min: 0, max: Number.MAX_SAFE_INTEGER,
   help: 'The same seed and settings give the same answer. Empty: another answer each time.'},
  {name: 'repetition_penalty', label: 'Repetition penalty', kind: 'number', min: 0.01, max: 100,
   step: 0.05, help: 'Above 1, tokens that the prompt or the answer has are less likely. 1: off.'},
  {name: 'presence_penalty', label: 'Presence penalty', kind: 'number', min: -2, max: 2, step: 0.1,
   help: 'Lowers tokens that the answer has already, once. 0: off.'},
  {name: 'frequency_penalty', label: 'Frequency penalty', kind: 'number', min: -2, max: 2,
   step: 0.1, help: 'Lowers them for each time that they came. 0: off.'},
  {name: 'stop', label: 'Stop strings', kind: 'lines',
   help: 'One a line; the answer ends before the first of them. \\n is a line break, \\t a tab.'},
];

const inputId = (field) => `setting-${field.name}`;

function unescapeLine(line) {
  const meanings = {n: '\n', t: '\t', '\\': '\\'};
  return line.replace(/\\([nt\\])/g, (_, letter) => meanings[letter]);
}

/** The value to send, or undefined for an empty field. */
function parse(field, text) {
  if (field.kind === 'lines') {
    const lines = text.split('\n').filter((line) => line !== '').map(unescapeLine);
    return lines.length > 0 ? lines : undefined;
  }
  return text.trim() === '' ? undefined : Number(text);
}

/** Why a number cannot be sent, or an empty text. */
function complaint(field, text) {
  const value = parse(field, text);
  if (value === undefined || field.kind === 'lines') return '';
  if (!Number.isFinite(value)) return 'This is not a number.';
  if (field.kind === 'integer' && !Number.isSafeInteger(value)) return 'This must be whole.';
  if (value < field.min) return `At least ${field.min}.`;
  if (value > field.max) return `At most ${field.max}.`;
  return '';
}

export class Settings {
  #kept = readStored('localStorage', kStoreKey) ?? {};
  #controls = new Map();
  #system = byId('system-prompt');

  constructor(onChange) {
    this.onChange = onChange;
    for (const field of kFields) byId('settings-fields').append(this.#makeField(field));
    this.#system.value = this.#keptText('system');
    this.#system.addEventListener('input', () => this.#keep('system', this.#system.value));
    byId('settings-reset').addEventListener('click', () => this.#reset());
    byId('settings-form').addEventListener('submit', (event) => event.preventDefault());
  }

  get systemPrompt() {
    return this.#system.value;
  }

  /** The fields of a request that are set. Fields out of range are left out; see invalidLabels. */
  requestFields() {
    const fields = {};
    for (const field of kFields) {
      const text = this.#controls.get(field.name).input.value;
      const value = complaint(field, text) === '' ? parse(field, text) : undefined;
      if (value !== undefined) fields[field.name] = value;
    }
    return fields;
  }

  invalidLabels() {
    return kFields.filter((field) => complaint(field, this.#controls.get(field.name).input.value))
        .map((field) => field.label);
  }

  numSet() {
    return Object.keys(this.requestFields()).length + (this.systemPrompt.trim() === '' ? 0 : 1);
  }

  #keptText(name) {
    const text = this.#kept[name];
    return typeof text === 'string' ? text : '';
  }

  #keep(name, text) {
    if (text === '') delete this.#kept[name];
    else this.#kept[name] = text;
    writeStored('localStorage', kStoreKey, this.#kept);
    this.onChange();
  }

  #makeField(field) {
    const id = inputId(field);
    const isLines = field.kind === 'lines';
    const input = element(isLines ? 'textarea' : 'input', {
      id, autocomplete: 'off', spellcheck: false, value: this.#keptText(field.name),
      placeholder: isLines ? '' : 'default', 'aria-describedby': `${id}-help ${id}-complaint`,
    });
    if (isLines) input.rows = 2;
    // Not type=number: that hides what is wrong with a text, and a wheel over it changes it.
    else input.inputMode = field.kind === 'integer' && field.min >= 0 ? 'numeric' : 'decimal';
    if (!isLines) this.#stepByArrows(field, input);
    const problem = element('p', {id: `${id}-complaint`, className: 'complaint'});
    this.#controls.set(field.name, {input, problem});
    input.addEventListener('input', () => {
      this.#show(field);
      this.#keep(field.name, input.value);
    });
    this.#show(field);
    return element('div', {className: isLines ? 'field wide' : 'field'},
        element('label', {htmlFor: id, textContent: field.label}), input, problem,
        element('p', {id: `${id}-help`, className: 'help', textContent: field.help}));
  }

  #stepByArrows(field, input) {
    input.addEventListener('keydown', (event) => {
      const direction = {ArrowUp: 1, ArrowDown: -1}[event.key];
      if (direction === undefined || input.value.trim() === '') return;
      const step = field.step ?? 1;
      const value = Math.round((Number(input.value) + direction * step) / step) * step;
      if (!Number.isFinite(value)) return;
      event.preventDefault();
      const bounded = Math.min(field.max, Math.max(field.min, value));
      input.value = String(Number(bounded.toFixed(4)));
      input.dispatchEvent(new Event('input'));
    });
  }

  #show(field) {
    const {input, problem} = this.#controls.get(field.name);
    const text = complaint(field, input.value);
    problem.textContent = text;
    input.setAttribute('aria-invalid', text === '' ? 'false' : 'true');
  }

  #reset() {
    this.#kept = {};
    writeStored('localStorage', kStoreKey, null);
    this.#system.value = '';
    for (const field of kFields) {
      this.#controls.get(field.name).input.value = '';
      this.#show(field);
    }
    this.onChange();
  }
}
