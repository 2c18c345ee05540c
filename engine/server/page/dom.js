// Small helpers: elements, storage that may be forbidden, numbers for people.

export const byId = (id) => document.getElementById(id);

/** A new element. Text is only ever set as text, so nothing from outside becomes markup. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function readStored(storage, key) {
  try {
    return JSON.parse(globalThis[storage].getItem(key));
  } catch {
    return null;  // forbidden, or not ours
  }
}

/** `value` null removes the entry. */
export function writeStored(storage, key, value) {
  try {
    if (value === null) globalThis[storage].removeItem(key);
    else globalThis[storage].setItem(key, JSON.stringify(value));
  } catch {
    // Forbidden or full: what was to be kept lasts as long as the page.
  }
}

/**
 * Fills a <dl> with rows of [label, value, meaning]. Changes only what differs, so that nobody's
 * selection or reading place is lost.
 */
export function showRows(list, rows) {
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(([label, , title = '']) => element('div', {title},
        element('dt', {textContent: label}), element('dd'))));
  }
  rows.forEach(([, value], index) => {
    const cell = list.children[index].lastElementChild;
    if (cell.textContent !== value) cell.textContent = value;
  });
}

/** Copies without the clipboard interface too, which plain HTTP from other machines lacks. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed: the old way may be.
    }
  }
  const focused = document.activeElement;
  const area = element('textarea', {value: text, className: 'visually-hidden'});
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand('copy');
  area.remove();
  focused?.focus();
  return isCopied;
}

const kCount = new Intl.NumberFormat('en');
export const formatCount = (value) => kCount.format(Math.round(value));

/** Three digits or so: 0.52, 8.3, 41, 1,250. */
export function formatRate(value) {
  if (value > 0 && value < 1) return value.toFixed(2);
  return value < 10 ? value.toFixed(1) : formatCount(value);
}

export const formatPercent = (part, whole) =>
    whole > 0 ? `${(100 * part / whole).toFixed(part === whole ? 0 : 1)} %` : '–';

export function formatSeconds(seconds) {
  if (seconds < 0.0995) return `${(1000 * seconds).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 0.9995) return `${(1000 * seconds).toFixed(0)} ms`;
  if (seconds < 99.95) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function formatBytes(bytes) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let unit = 0;
  while (bytes >= 999.5 && unit + 1 < units.length) {
    bytes /= 1000;
    ++unit;
  }
  return `${unit > 0 && bytes < 99.95 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}
