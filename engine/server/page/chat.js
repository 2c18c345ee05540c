// The conversation on the page: its turns, the box to write in, and the answer under way.
//
// At most one answer is under way (#abort is not null then).
import {byId} from './dom.js';
import {figuresOf, loadTurns, requestOf, storeTurns, streamAnswer} from './conversation.js';
import {TurnView} from './turn_view.js';

const kStickPixels = 48;  // nearer to the end than this, the view follows the answer

export class Chat {
  #turns = loadTurns();
  #views = new Map();
  #abort = null;
  #unshown = '';  // text that came since the last frame
  #frame = null;
  #log = byId('log');
  #input = byId('message');
  #mode = byId('mode');
  #settings;
  #announcer;
  #modelName;

  /** `modelName()` resolves to what requests name as their model. */
  constructor({settings, announcer, modelName}) {
    this.#settings = settings;
    this.#announcer = announcer;
    this.#modelName = modelName;
    for (const turn of this.#turns) this.#show(turn);
    if (this.#turns.length > 0) this.#mode.value = this.#turns.at(-1).mode;
    this.#finishAll();
    this.#listen();
    this.#showState();
    this.#log.scrollTop = this.#log.scrollHeight;
    // Where the keyboard is on the screen, this would bring it up.
    if (!matchMedia('(pointer: coarse)').matches) this.#input.focus();
  }

  #listen() {
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#input.addEventListener('input', () => this.#showState());
    this.#input.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    document.addEventListener('keydown', (event) => {
      const isForDialog = document.querySelector('dialog[open]') !== null;
      if (event.key === 'Escape' && !isForDialog && !event.isComposing) this.#stop();
    });
    byId('stop').addEventListener('click', () => this.#stop());
    byId('new-chat').addEventListener('click', () => this.#clear());
    this.#mode.addEventListener('change', () => this.#showState());
    addEventListener('pagehide', () => storeTurns(this.#turns));
  }

  #send() {
    const prompt = this.#input.value;
    if (prompt.trim() === '' || this.#abort) return;
    const turn = {mode: this.#mode.value, prompt, answer: '', state: 'streaming'};
    const previous = this.#turns.at(-1);
    this.#turns.push(turn);
    if (previous) this.#views.get(previous).finish(/*isLast=*/false);
    this.#show(turn);
    this.#input.value = '';
    this.#run(turn);
  }

  #stop() {
    this.#abort?.abort();
  }

  #clear() {
    this.#stop();
    this.#abort = null;  // what is left of it no longer shows
    this.#turns = [];
    this.#views.clear();
    byId('turns').replaceChildren();
    storeTurns(this.#turns);
    this.#announcer.say('New conversation.');
    this.#input.focus();
    this.#showState();
  }

  #again(turn) {
    if (this.#abort) return;
    this.#input.focus();  // the button that was pressed goes away
    this.#run(turn);
  }

  #asCompletion(turn) {
    if (this.#abort) return;
    turn.mode = 'completion';
    this.#mode.value = 'completion';
    const old = this.#views.get(turn).node;
    old.replaceWith(this.#makeView(turn).node);
    this.#again(turn);
  }

  async #run(turn) {
    const abort = new AbortController();
    this.#abort = abort;
    Object.assign(turn, {answer: '', state: 'streaming', error: null, figures: null,
                         finishReason: null});
    const view = this.#views.get(turn);
    view.restart();
    this.#announcer.say('Answering.');
    this.#showState();
    this.#follow(true);
    const clock = {firstTextMs: null, lastTextMs: null, endMs: 0, usage: null};
    try {
      await this.#receive(turn, view, clock, abort.signal);
      turn.state = 'done';
    } catch (error) {
      this.#takeFailure(turn, error, abort.signal.aborted);
    }
    this.#showText(view);
    if (clock.endMs > 0) turn.figures = figuresOf(clock);
    if (this.#abort === abort) this.#abort = null;
    if (!this.#views.has(turn)) return;  // a new conversation was begun
    const isFollowed = this.#isAtEnd();
    view.finish(/*isLast=*/turn === this.#turns.at(-1));
    this.#follow(isFollowed);
    storeTurns(this.#turns);
    this.#announcer.end(turn.state === 'failed' ? turn.error.message :
        turn.state === 'stopped' ? 'Stopped.' : 'Answer complete.');
    this.#showState();
  }

  async #receive(turn, view, clock, signal) {
    const options = {
      model: await this.#modelName(signal),
      settings: this.#settings.requestFields(),
      systemPrompt: this.#settings.systemPrompt,
    };
    const beginMs = performance.now();
    try {
      for await (const piece of streamAnswer(requestOf(this.#turns, turn, options), signal)) {
        if (piece.text) this.#takeText(turn, view, piece.text, clock, performance.now() - beginMs);
        if (piece.finishReason) turn.finishReason = piece.finishReason;
        if (piece.usage) clock.usage = piece.usage;
      }
    } finally {
      clock.endMs = performance.now() - beginMs;
    }
  }

  #takeText(turn, view, text, clock, nowMs) {
    clock.firstTextMs ??= nowMs;
    clock.lastTextMs = nowMs;
    turn.answer += text;
    this.#announcer.stream(text);
    this.#unshown += text;
    this.#frame ??= requestAnimationFrame(() => this.#showText(view));
  }

  /** Once a frame, however many tokens came: each costs a new layout. */
  #showText(view) {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const isFollowed = this.#isAtEnd();
    view.append(this.#unshown);
    this.#unshown = '';
    this.#follow(isFollowed);
  }

  #takeFailure(turn, error, isStopped) {
    if (isStopped) {
      turn.state = 'stopped';
      return;
    }
    turn.state = 'failed';
    const lacksTemplate = error.status === 400 && /no chat template/i.test(error.message);
    turn.error = {
      message: error.message,
      offersCompletion: turn.mode === 'chat' && lacksTemplate,
    };
  }

  #makeView(turn) {
    const view = new TurnView(turn, {
      regenerate: (which) => this.#again(which),
      asCompletion: (which) => this.#asCompletion(which),
    });
    this.#views.set(turn, view);
    return view;
  }

  #show(turn) {
    byId('turns').append(this.#makeView(turn).node);
  }

  #finishAll() {
    for (const turn of this.#turns) this.#views.get(turn).finish(turn === this.#turns.at(-1));
  }

  #isAtEnd() {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < kStickPixels;
  }

  #follow(isFollowed) {
    if (isFollowed) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #showState() {
    const isBusy = this.#abort !== null;
    const isChat = this.#mode.value === 'chat';
    byId('welcome').hidden = this.#turns.length > 0;
    const hadFocus = [byId('send'), byId('stop')].includes(document.activeElement);
    byId('send').hidden = isBusy;
    byId('stop').hidden = !isBusy;
    if (hadFocus) this.#input.focus();  // a hidden button would lose it
    byId('send').disabled = this.#input.value.trim() === '';
    byId('new-chat').disabled = this.#turns.length === 0;
    this.#input.placeholder = isChat ? 'Ask something' : 'Text for the model to continue';
    byId('message-label').textContent = isChat ? 'Message' : 'Text to continue';
    this.#grow();
  }

  /** The box is as high as its text, up to the limit that the style sets. */
  #grow() {
    this.#input.style.height = 'auto';
    this.#input.style.height = `${this.#input.scrollHeight + 2}px`;
  }
}
