// Measures of the page as it is shown, evaluated in it by page_test.py: an object of functions.
({
  /** Text whose contrast to what lies behind it is below WCAG's level AA. */
  lowContrast() {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const over = ([r, g, b, a = 1], below) =>
        [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
    const background = (node) => {
      const layers = [];
      for (let at = node; at; at = at.parentElement) {
        layers.push(channels(getComputedStyle(at).backgroundColor));
      }
      return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const luminance = (colour) => colour.map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const found = [];
    for (const node of document.querySelectorAll('body *')) {
      const hasText = [...node.childNodes].some(
          (child) => child.nodeType === Node.TEXT_NODE && child.data.trim() !== '');
      const isForSight = node.checkVisibility() && !node.closest('.visually-hidden') &&
          !node.matches(':disabled, option');
      if (!hasText || !isForSight) continue;
      const style = getComputedStyle(node);
      const behind = background(node);
      const [light, dark] = [luminance(over(channels(style.color), behind)), luminance(behind)]
          .sort((a, b) => b - a);
      const ratio = (light + 0.05) / (dark + 0.05);
      const size = parseFloat(style.fontSize);
      const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      if (ratio < (isLarge ? 3 : 4.5)) {
        found.push(`${node.tagName} "${node.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
      }
    }
    return found;
  },

  /** Controls that are shown but reach past the sides of the window, and the page if it does. */
  cutOff() {
    const found = [];
    if (document.scrollingElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
    for (const card of document.querySelectorAll('.card')) {
      if (card.scrollWidth > card.clientWidth) found.push(`text leaves "${card.innerText}"`);
    }
    for (const node of document.querySelectorAll('button, input, textarea, select, summary')) {
      if (!node.checkVisibility()) continue;
      const box = node.getBoundingClientRect();
      if (box.left < 0 || box.right > innerWidth) found.push(`${node.id} ${node.textContent}`);
    }
    return found;
  },

  /** How one is to call an element here. */
  nameOf(node) {
    return node.id || node.dataset.view || node.textContent.trim() || node.className;
  },

  /** What can be reached with the keyboard and is shown. */
  reachable() {
    const all = document.querySelectorAll('a[href], button, input, textarea, select, summary, ' +
        '[tabindex="0"]');
    return [...all].filter((node) => node.checkVisibility() && !node.disabled &&
        !node.closest('dialog')).map((node) => this.nameOf(node));
  },

  /** The element with the focus, and whether one can see that it has it. */
  focused() {
    const node = document.activeElement;
    const style = getComputedStyle(node);
    return {name: node === document.body ? null : this.nameOf(node),
            isMarked: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1};
  },

  /** Numbers of different colours on a canvas: 1 or less where nothing was drawn. */
  numColours(selector) {
    const shown = document.querySelector(selector);
    const copy = document.createElement('canvas');  // the shown one is not made to be read
    copy.width = shown.width;
    copy.height = shown.height;
    const context = copy.getContext('2d', {willReadFrequently: true});
    context.drawImage(shown, 0, 0);
    const {data} = context.getImageData(0, 0, copy.width, copy.height);
    return new Set(new Uint32Array(data.buffer)).size;
  },
})
