// Asks the server for its figures every second while the page is seen, and works out what happened
// in between.
//
// Connection states: 'connecting' -> 'connected' <-> 'lost'; 'unready' where the server answers that
// it cannot serve; 'locked' while a key is missing; 'absent' where it has no figures to give.
import {ApiError, request} from './api.js';

const kPeriodMs = 1000;
const kTimeoutMs = 5000;
const kKeyTimeoutMs = 600_000;  // for people to look for their key
const kHistoryLength = 120;  // two minutes

export class Live {
  #onChange;
  #timer = null;
  #isPolling = false;
  #hasAskedForKey = false;
  connection = 'connecting';
  stats = null;     // the newest, kept while the connection is lost
  rates = null;     // {prompt, generated}: tokens per second, between the last two answers
  recent = null;    // {hits, uses} of experts, over the history
  history = [];     // of {generated, prompt, running, waiting, kvShare}; null values where unknown
  #oldExperts = [];  // {uses, hits} as they were, one per entry of the history

  /** `onChange(live)` is called after every attempt. */
  constructor(onChange) {
    this.#onChange = onChange;
    document.addEventListener('visibilitychange', () => this.#schedule(0));
    this.#schedule(0);
  }

  /** Asks at once, and may ask the user for a key again. */
  retry() {
    this.#hasAskedForKey = false;
    this.#schedule(0);
  }

  #schedule(delayMs) {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    this.#timer = setTimeout(() => this.#poll(), delayMs);
  }

  async #poll() {
    if (this.#isPolling) return;  // schedules itself when it ends
    this.#isPolling = true;
    const beginMs = performance.now();
    try {
      const mayAsk = !this.#hasAskedForKey;
      const answer = await this.#ask(mayAsk);
      this.#take(answer);
      this.#hasAskedForKey = false;
      this.connection = 'connected';
    } catch (error) {
      this.#takeFailure(error);
    }
    this.#isPolling = false;
    this.#schedule(Math.max(100, kPeriodMs - (performance.now() - beginMs)));
    this.#onChange(this);
  }

  async #ask(mayAsk) {
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), kTimeoutMs);
    try {
      return await (await request('/stats', {signal: timeout.signal, mayAsk: false})).json();
    } catch (error) {
      if (error.status !== 401 || !mayAsk) throw error;
    } finally {
      clearTimeout(timer);
    }
    this.#hasAskedForKey = true;
    return (await request('/stats', {signal: AbortSignal.timeout(kKeyTimeoutMs)})).json();
  }

  #takeFailure(error) {
    this.rates = null;
    const status = error instanceof ApiError ? error.status : 0;
    if (status === 401 || status === 403) this.connection = 'locked';
    else if (status >= 500) this.connection = 'unready';
    else if (status >= 400) this.connection = 'absent';
    else this.connection = 'lost';
    if (this.history.length > 0) this.#push({});
  }

  #take(stats) {
    const old = this.stats;
    this.stats = stats;
    const isSameServer = old !== null && stats.uptime_s >= old.uptime_s;
    if (!isSameServer) {
      this.history = [];
      this.#oldExperts = [];
    }
    const seconds = isSameServer ? stats.uptime_s - old.uptime_s : 0;
    // After a gap, as when the page was not seen, the mean over it says little about now.
    const isFresh = seconds > 0 && seconds < 5 * kPeriodMs / 1000;
    this.rates = isFresh ? {
      prompt: (stats.tokens.prompt - old.tokens.prompt) / seconds,
      generated: (stats.tokens.generated - old.tokens.generated) / seconds,
    } : null;
    if (isSameServer && !isFresh) this.#push({});
    this.#push({
      generated: this.rates?.generated,
      prompt: this.rates?.prompt,
      running: stats.requests.running,
      waiting: stats.requests.waiting,
      kvShare: stats.kv.total_blocks > 0 ? 1 - stats.kv.free_blocks / stats.kv.total_blocks : null,
    });
    this.#takeExperts(stats.experts);
  }

  #takeExperts(experts) {
    this.recent = null;
    if (!experts) return;
    const {uses, hits} = experts.counts;
    this.#oldExperts.push({uses, hits});
    if (this.#oldExperts.length > kHistoryLength) this.#oldExperts.shift();
    const [first] = this.#oldExperts;
    this.recent = {uses: uses - first.uses, hits: hits - first.hits};
  }

  #push({generated = null, prompt = null, running = null, waiting = null, kvShare = null}) {
    this.history.push({generated, prompt, running, waiting, kvShare});
    if (this.history.length > kHistoryLength) this.history.shift();
  }
}
