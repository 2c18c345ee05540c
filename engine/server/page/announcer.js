// Tells screen readers what happens, in sentences rather than in tokens.
import {byId, element} from './dom.js';

const kPauseMs = 2000;
const kMaxLines = 20;

export class Announcer {
  #region = byId('announcements');
  #pending = '';
  #timer = null;

  /** Says `text` now. */
  say(text) {
    this.#region.append(element('p', {textContent: text}));
    while (this.#region.childElementCount > kMaxLines) this.#region.firstElementChild.remove();
  }

  /** Text of an answer that goes on: whole sentences of it are said, every other second. */
  stream(text) {
    this.#pending += text;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#sayWhole();
    }, kPauseMs);
  }

  /** Says what is left of the answer, then `text`. */
  end(text) {
    clearTimeout(this.#timer);
    this.#timer = null;
    const rest = this.#pending.trim();
    this.#pending = '';
    if (rest !== '') this.say(rest);
    this.say(text);
  }

  #sayWhole() {
    const whole = /^[^]*(?:[.!?:;]\s|\n)/.exec(this.#pending)?.[0] ?? '';
    this.#pending = this.#pending.slice(whole.length);
    if (whole.trim() !== '') this.say(whole.trim());
  }
}
