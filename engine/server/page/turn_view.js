// How one turn of a conversation looks: what was asked, the answer as it grows, what it took.
import {copyText, element, formatCount, formatRate, formatSeconds} from './dom.js';
import {RichText} from './text.js';

const kEnds = {
  length: 'ended at the token limit',
  abort: 'ended by the server',
};

function button(label, onClick, className = 'quiet') {
  const node = element('button', {type: 'button', className, textContent: label});
  node.addEventListener('click', onClick);
  return node;
}

function figure(label, value, title) {
  return element('span', {className: 'figure', title}, `${label} `,
      element('b', {textContent: value}));
}

function figureNodes(figures) {
  const nodes = [];
  if (figures.firstTextSeconds !== null) {
    nodes.push(figure('first token', formatSeconds(figures.firstTextSeconds),
        'From sending the request to the first text: waiting in the queue and reading the prompt'));
  }
  if (figures.numTokens !== null) {
    nodes.push(figure('tokens', formatCount(figures.numTokens), 'Of the answer'));
  }
  if (figures.tokensPerSecond !== null) {
    nodes.push(figure('tokens/s', formatRate(figures.tokensPerSecond), 'After the first token'));
  }
  nodes.push(figure('total', formatSeconds(figures.totalSeconds),
      'From sending the request to the end of the answer'));
  if (figures.numPromptTokens !== null) {
    const {numCachedTokens} = figures;
    const cached = numCachedTokens ? `, ${formatCount(numCachedTokens)} cached` : '';
    nodes.push(figure('prompt', `${formatCount(figures.numPromptTokens)}${cached}`,
        'Tokens of the prompt; those cached did not have to be computed again'));
  }
  return nodes;
}

export class TurnView {
  #turn;
  #actions;
  #body = element('div', {className: 'answer-body'});
  #foot = element('footer', {className: 'answer-foot'});
  #answer;
  #text;

  /** `actions`: regenerate(turn), asCompletion(turn). */
  constructor(turn, actions) {
    this.#turn = turn;
    this.#actions = actions;
    const isChat = turn.mode === 'chat';
    const question = element('article', {className: 'question', ariaLabel: 'You'},
        element('h3', {textContent: isChat ? 'You' : 'Text to continue'}),
        element('div', {className: 'prose', textContent: turn.prompt}));
    this.#answer = element('article', {className: 'answer', ariaLabel: 'Answer'},
        element('h3', {textContent: isChat ? 'Answer' : 'Continuation'}), this.#body, this.#foot);
    this.node = element('div', {className: 'turn'}, question, this.#answer);
    this.restart();
    if (turn.answer !== '') this.#text.append(turn.answer);
  }

  /** Clears the answer; it is about to grow. */
  restart() {
    this.#text = new RichText(this.#body);
    this.#foot.replaceChildren();
    this.#answer.setAttribute('aria-busy', 'true');
  }

  append(text) {
    this.#text.append(text);
  }

  /** Shows how the turn ended. `isLast`: it can be asked again. */
  finish(isLast) {
    const turn = this.#turn;
    this.#text.finish();
    this.#answer.setAttribute('aria-busy', 'false');
    this.#foot.replaceChildren();
    if (turn.error) this.#foot.append(this.#errorNode());
    const line = element('div', {className: 'foot-line'});
    if (turn.answer !== '') line.append(this.#copyButton());
    if (isLast) {
      const label = turn.answer === '' ? 'Try again' : 'Regenerate';
      line.append(button(label, () => this.#actions.regenerate(turn)));
    }
    const end = turn.state === 'stopped' ? 'stopped' : kEnds[turn.finishReason];
    if (end) line.append(element('span', {textContent: end}));
    if (turn.figures) line.append(...figureNodes(turn.figures));
    this.#foot.append(line);
  }

  #errorNode() {
    const {message, offersCompletion} = this.#turn.error;
    const node = element('p', {className: 'error', role: 'alert', textContent: message});
    if (offersCompletion) {
      node.append(' ', button('Send as a plain completion',
          () => this.#actions.asCompletion(this.#turn), 'secondary'));
    }
    return node;
  }

  #copyButton() {
    const copy = button('Copy', async () => {
      copy.textContent = await copyText(this.#turn.answer) ? 'Copied' : 'Could not copy';
      setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    });
    return copy;
  }
}
