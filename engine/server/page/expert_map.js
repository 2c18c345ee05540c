// The map of experts on a canvas: a row per layer, a column per expert; or the misses of each layer
// by cause, as bars. Draws what it is given, and says which cell lies where.
import {cssColour, prepare} from './charts.js';

export const kNumShades = 10;
export const kCauses = {
  late_prefetch: 'on its way',
  cold: 'first time',
  prefill_evicted: 'a prompt took its place',
  mispredicted: 'a wrong guess took its place',
  capacity: 'no room',
};
export const kStates = ['absent', 'being fetched', 'in the pool', 'in use'];

const kLabelWidth = 34;
const kHeadHeight = 16;
const kMinCellWidth = 3;
const kMinCellHeight = 7;
const kMaxCellSize = 18;
const kLabelSpace = 28;  // of a column's number

/** How large the cells are for `numRows` by `numColumns` in `availableWidth` pixels. */
function gridOf(numRows, numColumns, availableWidth) {
  const room = Math.floor((availableWidth - kLabelWidth) / numColumns);
  const cellWidth = Math.min(kMaxCellSize, Math.max(kMinCellWidth, room));
  const cellHeight = Math.max(kMinCellHeight, cellWidth);
  return {
    numRows, numColumns, cellWidth, cellHeight,
    width: Math.max(kLabelWidth + numColumns * cellWidth, Math.min(availableWidth, 160)),
    height: kHeadHeight + numRows * cellHeight,
  };
}

/** 1, 2, 5, 10, ...: cells from one label to the next that needs `needed` pixels. */
function labelStep(needed, cell) {
  for (let decade = 1;; decade *= 10) {
    for (const factor of [1, 2, 5]) {
      if (factor * decade * cell >= needed) return factor * decade;
    }
  }
}

/** From nothing (0) to all (1): the colour's name. */
export const shadeOf = (share) =>
    `--shade-${Math.min(kNumShades - 1, Math.floor(share * kNumShades))}`;

/**
 * The colour of each cell of a layer, by its name in the style sheet; null: there is nothing to
 * show, as for hits of an expert that nobody wanted.
 */
const kColourings = {
  states: (layer) => Array.from(layer.states, (state) => `--state-${state}`),
  uses: (layer, {maxUses}) => layer.uses.map((uses) =>
      uses > 0 ? shadeOf(Math.sqrt(uses / maxUses)) : null),
  hits: (layer) => layer.uses.map((uses, expert) =>
      uses > 0 ? shadeOf(layer.hits[expert] / uses) : null),
  prefetches: (layer, {maxPrefetches}) => layer.prefetches.map((prefetches) =>
      prefetches > 0 ? shadeOf(Math.sqrt(prefetches / maxPrefetches)) : null),
};

export class ExpertMap {
  #canvas;
  #grid = null;

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** `what`: a key of kColourings, or 'misses'. `cursor`: {row, column} to be marked, or null. */
  draw(experts, what, cursor) {
    const available = this.#canvas.parentElement.clientWidth;
    if (available === 0) return;
    this.#grid = gridOf(experts.layers.length, experts.num_experts, available);
    this.#canvas.style.width = `${this.#grid.width}px`;
    this.#canvas.style.height = `${this.#grid.height}px`;
    const {context} = prepare(this.#canvas, this.#grid.width, this.#grid.height);
    context.font = '10px system-ui, sans-serif';
    context.fillStyle = cssColour('--muted');
    this.#drawRowLabels(context, experts.layers);
    if (what === 'misses') {
      this.#drawMisses(context, experts.layers);
    } else {
      this.#drawColumnLabels(context);
      this.#drawCells(context, experts, kColourings[what]);
    }
    if (cursor) this.#drawCursor(context, cursor, what);
  }

  /** The cell at a place on the canvas in CSS pixels, or null. */
  cellAt(x, y) {
    if (!this.#grid) return null;
    const row = Math.floor((y - kHeadHeight) / this.#grid.cellHeight);
    const column = Math.floor((x - kLabelWidth) / this.#grid.cellWidth);
    const isIn = row >= 0 && row < this.#grid.numRows && column >= 0 &&
        column < this.#grid.numColumns;
    return isIn ? {row, column} : null;
  }

  #drawRowLabels(context, layers) {
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    const step = labelStep(11, this.#grid.cellHeight);
    layers.forEach(({layer}, row) => {
      if (row % step !== 0) return;
      context.fillText(layer, kLabelWidth - 6, kHeadHeight + (row + 0.5) * this.#grid.cellHeight);
    });
  }

  #drawColumnLabels(context) {
    context.textAlign = 'center';
    const step = labelStep(kLabelSpace, this.#grid.cellWidth);
    for (let column = 0; column < this.#grid.numColumns; column += step) {
      context.fillText(column, kLabelWidth + (column + 0.5) * this.#grid.cellWidth, 7);
    }
  }

  #drawCells(context, experts, colouring) {
    const {cellWidth, cellHeight} = this.#grid;
    const largest = (name) => Math.max(1, ...experts.layers.map((layer) =>
        layer[name].reduce((max, value) => Math.max(max, value), 0)));
    const scales = {maxUses: largest('uses'), maxPrefetches: largest('prefetches')};
    const colours = new Map();  // a look-up in the style sheet costs more than a rectangle
    const gap = cellWidth > 3 ? 1 : 0;
    experts.layers.forEach((layer, row) => {
      colouring(layer, scales).forEach((name, column) => {
        const key = name ?? '--cell-none';
        if (!colours.has(key)) colours.set(key, cssColour(key));
        context.fillStyle = colours.get(key);
        context.fillRect(kLabelWidth + column * cellWidth, kHeadHeight + row * cellHeight,
            cellWidth - gap, cellHeight - 1);
      });
    });
  }

  #drawMisses(context, layers) {
    const {cellHeight, width} = this.#grid;
    const sums = layers.map(({counts}) => counts.uses - counts.hits);
    const scale = (width - kLabelWidth) / Math.max(1, ...sums);
    layers.forEach(({counts}, row) => {
      let x = kLabelWidth;
      Object.keys(kCauses).forEach((cause, index) => {
        const length = counts.misses[cause] * scale;
        context.fillStyle = cssColour(`--cause-${index}`);
        context.fillRect(x, kHeadHeight + row * cellHeight, length, cellHeight - 1);
        x += length;
      });
    });
  }

  #drawCursor(context, {row, column}, what) {
    const {cellWidth, cellHeight, width} = this.#grid;
    const isWhole = what === 'misses';
    context.strokeStyle = cssColour('--text');
    context.lineWidth = 2;
    context.strokeRect(kLabelWidth + (isWhole ? 0 : column * cellWidth) - 1,
        kHeadHeight + row * cellHeight - 1, (isWhole ? width - kLabelWidth : cellWidth) + 1,
        cellHeight + 1);
  }
}
