// The view of the engine's figures: rates, queue, KV cache, requests, latencies.
import {byId, formatBytes, formatCount, formatPercent, formatRate, formatSeconds, showRows}
  from './dom.js';
import {drawSparkline} from './charts.js';

const kHistoryLength = 120;
const kConnections = {
  connecting: 'connecting',
  lost: 'disconnected, trying again',
  unready: 'not ready, trying again',
  locked: 'API key needed',
  absent: 'no live figures',
};

/** What the mark in the head of the page says. */
export function stateText({connection, stats}) {
  if (connection !== 'connected') return kConnections[connection];
  if (stats.state !== 'loading' || !stats.loading) return stats.state;
  const {phase, share} = stats.loading;
  return `loading: ${phase}${share === null ? '' : ` ${Math.floor(100 * share)} %`}`;
}

function percentilesText(times) {
  if (!times || times.num_samples === 0) return '–';
  return [times.p50_s, times.p90_s, times.p99_s].map(formatSeconds).join(' / ');
}

const bound = (value, max) => `${formatCount(value)} of ${formatCount(max)}`;

/** Rows of the table below the charts: [label, value, what it means]. */
function rowsOf({requests, queue, kv, ttft, inter_token: interToken, ...stats}) {
  return [
    ['First token, p50 / p90 / p99', percentilesText(ttft), 'From a request’s arrival'],
    ['Between tokens, p50 / p90 / p99', percentilesText(interToken), ''],
    ['Requests finished', formatCount(requests.finished), ''],
    ['aborted / failed / refused',
     [requests.aborted, requests.failed, requests.refused].map(formatCount).join(' / '),
     'Given up by clients or by time, gone wrong, and not let in'],
    ['Queued requests', bound(queue.requests, queue.max_requests), 'Before their first step'],
    ['Queued prompt tokens', bound(queue.tokens, queue.max_tokens), 'Before their first step'],
    ['Prompt tokens found in the cache',
     formatPercent(kv.prefix_hit_tokens, kv.prefix_query_tokens), 'Since the start'],
    ['Preemptions', formatCount(kv.preemptions),
     'Completions that gave way for lack of KV memory and were computed again'],
    ['Tokens read / written',
     `${formatCount(stats.tokens.prompt)} / ${formatCount(stats.tokens.generated)}`,
     'Since the start'],
    ['Memory', stats.resident_bytes === null ? '–' : formatBytes(stats.resident_bytes),
     'Of the process, in RAM'],
    ['Up for', formatSeconds(stats.uptime_s), ''],
    ['Version', stats.version, ''],
  ];
}

export class EngineView {
  #live = null;

  constructor() {
    const redraw = () => this.#draw();
    addEventListener('themechange', redraw);
    const observer = new ResizeObserver(redraw);
    for (const canvas of document.querySelectorAll('#engine canvas')) observer.observe(canvas);
  }

  show(live) {
    this.#live = live;
    const {stats, rates} = live;
    byId('engine-none').hidden = stats !== null;
    byId('engine-figures').hidden = stats === null;
    if (stats === null) {
      byId('engine-none').textContent = live.connection === 'absent' ?
          'This server gives no live figures.' : 'No figures yet.';
      return;
    }
    byId('engine').classList.toggle('stale', live.connection !== 'connected');
    const rate = (value) => value === undefined ? '–' : formatRate(value);
    byId('rate-generated').textContent = rate(rates?.generated);
    byId('rate-prompt').textContent = rate(rates?.prompt);
    byId('running').textContent = formatCount(stats.requests.running);
    byId('waiting').textContent = formatCount(stats.requests.waiting);
    this.#showKv(stats.kv);
    showRows(byId('engine-rows'), rowsOf(stats));
    this.#draw();
  }

  #showKv(kv) {
    const {total_blocks: total, free_blocks: free, cached_blocks: cached} = kv;
    const onlyRunning = Math.max(0, total - free - cached);
    byId('kv-share').textContent = formatPercent(total - free, total);
    byId('kv-running').style.width = total > 0 ? `${100 * onlyRunning / total}%` : '0';
    byId('kv-cached').style.width = total > 0 ? `${100 * cached / total}%` : '0';
    byId('kv-running-text').textContent = `${formatCount(onlyRunning)} held by requests alone`;
    byId('kv-cached-text').textContent = `${formatCount(cached)} by the prefix cache`;
    byId('kv-free-text').textContent = `${formatCount(free)} free`;
    byId('kv-total').textContent =
        `${formatCount(total)} blocks of ${formatCount(kv.block_tokens)} tokens`;
  }

  #draw() {
    if (!this.#live?.stats) return;
    const {history} = this.#live;
    const chart = (id, name, what, options) => {
      const values = history.map((entry) => entry[name]);
      const known = values.filter((value) => value !== null);
      drawSparkline(byId(id), values, {length: kHistoryLength, ...options});
      const scale = options.max ? 100 : 1;
      const text = known.length === 0 ? `${what}: nothing yet` :
          `${what}, last two minutes: now ${formatRate(scale * known.at(-1))}, ` +
          `at most ${formatRate(scale * Math.max(...known))}`;
      byId(id).setAttribute('aria-label', text);
    };
    chart('chart-generated', 'generated', 'Generated tokens per second', {colour: '--accent'});
    chart('chart-prompt', 'prompt', 'Prompt tokens per second', {colour: '--second'});
    chart('chart-waiting', 'waiting', 'Completions waiting', {colour: '--third', least: 4});
    chart('chart-kv', 'kvShare', 'Per cent of KV memory held', {colour: '--second', max: 1});
  }
}
