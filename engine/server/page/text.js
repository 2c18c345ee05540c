// Text of a model as nodes: whitespace as it is, fenced code blocks in <pre>.
//
// Nothing else of Markdown is read. Text arrives in pieces cut anywhere and is shown at once, but
// for the beginning of a line that may still turn out to be a fence.
import {copyText, element} from './dom.js';

const kFence = /^ {0,3}(`{3,})([^`]*)$/;
// The beginning of a line that may become a fence: what follows the backticks may be a language.
const kMaybeFence = /^ {0,3}(`{0,2}|`{3,}[^`]*)$/;

export class RichText {
  #container;
  #target = null;     // the text node that grows
  #fenceLength = 0;   // of the block that is open; 0: none is
  #line = '';         // held back, while it may be a fence
  #isHeld = true;     // at the beginning of a line
  #text = [];

  constructor(container) {
    this.#container = container;
    container.replaceChildren();
  }

  /** All that was appended. */
  get text() {
    return this.#text.join('');
  }

  append(text) {
    this.#text.push(text);
    let start = 0;
    while (start < text.length) {
      const end = text.indexOf('\n', start);
      const isWhole = end >= 0;
      this.#appendToLine(text.slice(start, isWhole ? end : undefined));
      if (!isWhole) return;
      this.#endLine();
      start = end + 1;
    }
  }

  /** Shows what was held back. */
  finish() {
    if (this.#isHeld && this.#line !== '' && !this.#takeFence()) this.#write(this.#line);
    this.#line = '';
    this.#isHeld = false;
  }

  #appendToLine(part) {
    if (!this.#isHeld) {
      this.#write(part);
      return;
    }
    this.#line += part;
    if (kMaybeFence.test(this.#line)) return;
    this.#isHeld = false;
    this.#write(this.#line);
    this.#line = '';
  }

  #endLine() {
    if (!this.#isHeld) this.#write('\n');
    else if (!this.#takeFence()) this.#write(this.#line + '\n');
    this.#line = '';
    this.#isHeld = true;
  }

  #takeFence() {
    const match = kFence.exec(this.#line);
    if (!match) return false;
    const [, ticks, info] = match;
    if (this.#fenceLength === 0) {
      this.#openBlock(info.trim());
      this.#fenceLength = ticks.length;
      return true;
    }
    if (ticks.length < this.#fenceLength || info.trim() !== '') return false;
    this.#fenceLength = 0;
    this.#target = null;
    return true;
  }

  #openBlock(language) {
    // Blank lines before a block, and after it, would only widen the gap that it has anyway.
    if (this.#target) this.#target.data = this.#target.data.trimEnd();
    this.#target = document.createTextNode('');
    const code = element('code', {}, this.#target);
    const copy = element('button', {type: 'button', className: 'quiet', textContent: 'Copy code'});
    copy.addEventListener('click', async () => {
      copy.textContent = await copyText(code.textContent) ? 'Copied' : 'Could not copy';
      setTimeout(() => { copy.textContent = 'Copy code'; }, 1500);
    });
    const pre = element('pre', {tabIndex: 0, role: 'region', ariaLabel: language || 'Code'}, code);
    this.#container.append(element('div', {className: 'code-block'},
        element('div', {className: 'code-head'}, element('span', {textContent: language}), copy),
        pre));
  }

  #write(text) {
    if (text === '') return;
    if (this.#target === null) {
      if (this.#container.hasChildNodes()) text = text.replace(/^\n+/, '');
      if (text === '') return;
      this.#target = document.createTextNode('');
      this.#container.append(element('div', {className: 'prose'}, this.#target));
    }
    this.#target.appendData(text);
  }
}
