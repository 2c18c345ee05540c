// The view of expert memory: how well the pool does, the map, and the same as a table.
import {byId, element, formatBytes, formatCount, formatPercent, formatSeconds, showRows}
  from './dom.js';
import {ExpertMap, kCauses, kNumShades, kStates} from './expert_map.js';

const kScales = {
  uses: ['few uses', 'many'],
  hits: ['0 % hits', '100 %'],
  prefetches: ['few prefetches', 'many'],
};

function swatch(colour, label) {
  const mark = element('span', {className: 'swatch', ariaHidden: 'true'});
  mark.style.background = `var(${colour})`;
  return element('span', {className: 'legend-item'}, mark, label);
}

function legendOf(what) {
  if (what === 'states') return kStates.map((name, state) => swatch(`--state-${state}`, name));
  if (what === 'misses') {
    return Object.values(kCauses).map((name, index) => swatch(`--cause-${index}`, name));
  }
  const [least, most] = kScales[what];
  const ramp = element('span', {className: 'ramp', ariaHidden: 'true'});
  for (let shade = 0; shade < kNumShades; ++shade) {
    const step = element('span');
    step.style.background = `var(--shade-${shade})`;
    ramp.append(step);
  }
  return [element('span', {className: 'legend-item'}, least, ramp, most),
          swatch('--cell-none', what === 'prefetches' ? 'none' : 'never wanted')];
}

const countResident = (layer) => Array.from(layer.states).filter((state) => state >= '2').length;

function missesText(counts) {
  return Object.entries(kCauses).filter(([cause]) => counts.misses[cause] > 0)
      .map(([cause, name]) => `${formatCount(counts.misses[cause])} ${name}`).join(', ') || 'none';
}

/** What is known of one expert, or of a layer where the map shows layers. */
function describe(experts, {row, column}, what) {
  const layer = experts.layers[row];
  if (what === 'misses') return `Layer ${layer.layer}: misses: ${missesText(layer.counts)}.`;
  const uses = layer.uses[column];
  const hits = uses > 0 ? `, ${formatPercent(layer.hits[column], uses)} hits` : '';
  const prefetches = layer.prefetches[column];
  return `Layer ${layer.layer}, expert ${column}: ${kStates[layer.states[column]]}; ` +
      `${formatCount(uses)} uses${hits}; ${formatCount(prefetches)} prefetches.`;
}

function rowsOf(experts, recent) {
  const {counts} = experts;
  const total = experts.num_experts * experts.layers.length;
  return [
    ['Pool', `${formatCount(experts.num_slots)} slots for ${formatCount(total)} experts ` +
        `(${formatPercent(experts.num_slots, total)}), ` +
        formatBytes(experts.num_slots * experts.slot_bytes)],
    ['Hits, last two minutes', recent ? formatPercent(recent.hits, recent.uses) : '–'],
    ['Hits since the start', `${formatPercent(counts.hits, counts.uses)} of ` +
        `${formatCount(counts.uses)} uses`],
    ['Misses by cause', missesText(counts)],
    ['Prefetches', `${formatCount(counts.prefetches)}: ${formatCount(counts.useful_prefetches)} ` +
        `useful, ${formatCount(counts.wasted_prefetches)} wasted`],
    ['Read on demand', formatBytes(experts.demand_bytes)],
    ['Read ahead', `${formatBytes(experts.useful_prefetch_bytes)} useful, ` +
        `${formatBytes(experts.wasted_prefetch_bytes)} wasted`],
    ['Waited for experts', formatSeconds(experts.stall_s)],
    ['Reads that failed', formatCount(experts.num_failed_fetches)],
  ];
}

export class ExpertsView {
  #experts = null;
  #canvas = byId('expert-map');
  #map = new ExpertMap(this.#canvas);
  #what = byId('map-what');
  #cursor = null;

  constructor() {
    const redraw = () => this.#draw();
    addEventListener('themechange', redraw);
    new ResizeObserver(redraw).observe(this.#canvas.parentElement);
    this.#what.addEventListener('change', () => {
      this.#showLegend();
      redraw();
    });
    this.#canvas.addEventListener('pointermove', (event) => this.#point(event));
    this.#canvas.addEventListener('pointerdown', (event) => this.#point(event));
    this.#canvas.addEventListener('keydown', (event) => this.#move(event));
    byId('expert-table').addEventListener('toggle', () => this.#showTable());
    this.#showLegend();
  }

  show({stats, recent}) {
    const isKnown = Boolean(stats) && stats.state !== 'loading';
    this.#experts = isKnown ? stats.experts : null;
    byId('experts-none').hidden = this.#experts !== null;
    byId('experts-figures').hidden = this.#experts === null;
    byId('experts-none').textContent = isKnown ?
        'All experts are resident: every one has its own place in memory, so there is no pool, ' +
        'nothing to fetch and nothing to miss.' : 'No figures yet.';
    if (this.#experts === null) return;
    showRows(byId('expert-rows'), rowsOf(this.#experts, recent));
    this.#draw();
    this.#showTable();
  }

  #draw() {
    if (this.#experts === null) return;
    const {layers, num_experts: numExperts} = this.#experts;
    if (this.#cursor && (this.#cursor.row >= layers.length || this.#cursor.column >= numExperts)) {
      this.#cursor = null;
    }
    this.#map.draw(this.#experts, this.#what.value, this.#cursor);
    const numResident = layers.reduce((sum, layer) => sum + countResident(layer), 0);
    this.#canvas.setAttribute('aria-label',
        `Map of ${layers.length} layers by ${numExperts} experts: ` +
        `${this.#what.selectedOptions[0].textContent}. ${numResident} are in the pool. ` +
        'Arrow keys read single experts; the table below has each layer.');
  }

  #showLegend() {
    byId('map-legend').replaceChildren(...legendOf(this.#what.value));
  }

  #showCursor(cursor) {
    this.#cursor = cursor;
    byId('map-readout').textContent = describe(this.#experts, cursor, this.#what.value);
    this.#draw();
  }

  #point(event) {
    const cell = this.#experts && this.#map.cellAt(event.offsetX, event.offsetY);
    if (cell) this.#showCursor(cell);
  }

  #move(event) {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
                  Home: [0, -Infinity], End: [0, Infinity]}[event.key];
    if (!step || !this.#experts) return;
    event.preventDefault();
    const {layers, num_experts: numExperts} = this.#experts;
    const bounded = (value, count) => Math.min(count - 1, Math.max(0, value));
    const from = this.#cursor ?? {row: 0, column: 0};
    this.#showCursor(this.#cursor ? {
      row: bounded(from.row + step[0], layers.length),
      column: bounded(from.column + step[1], numExperts),
    } : from);
  }

  #showTable() {
    if (!byId('expert-table').open || this.#experts === null) return;
    const cells = ({layer, counts, ...rest}) => [
      layer, countResident(rest), counts.uses, formatPercent(counts.hits, counts.uses),
      ...Object.keys(kCauses).map((cause) => counts.misses[cause]), counts.prefetches,
      counts.useful_prefetches, counts.wasted_prefetches,
    ].map((value) => typeof value === 'number' ? formatCount(value) : value);
    byId('expert-table-body').replaceChildren(...this.#experts.layers.map((layer) => {
      const [head, ...others] = cells(layer);
      return element('tr', {}, element('th', {scope: 'row', textContent: head}),
          ...others.map((text) => element('td', {textContent: text})));
    }));
  }
}
