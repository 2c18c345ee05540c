// The page's parts, put together: chat, settings, and what the engine does, live.
//
// GET /stats is what the live figures come from (engine/server/stats.h, which makes it, says what
// each one means). Counters run from the server's start, and rates are worked out here:
//   {
//     "state": "loading" | "ready" | "draining" | "failed",
//     "model": "name", "version": "0.1.0", "uptime_s": 12.5,
//     "loading": null | {"phase": "reading weights", "share": 0.4 | null},
//     "tokens": {"prompt", "generated"},
//     "requests": {"running", "waiting", "finished", "aborted", "failed", "refused"},
//     "queue": {"requests", "max_requests", "tokens", "max_tokens"},
//     "kv": {"block_tokens", "total_blocks", "free_blocks", "cached_blocks",
//            "prefix_query_tokens", "prefix_hit_tokens", "preemptions"},
//     "ttft": null | {"num_samples", "p50_s", "p90_s", "p99_s"}, "inter_token": likewise,
//     "resident_bytes": null | bytes,
//     "experts": null (every expert has its own place) | {
//       "num_experts", "num_slots", "num_fetching", "slot_bytes",
//       "counts": {"uses", "hits", "misses": {"late_prefetch", "cold", "prefill_evicted",
//                  "mispredicted", "capacity"}, "prefetches", "useful_prefetches",
//                  "wasted_prefetches"},
//       "demand_bytes", "useful_prefetch_bytes", "wasted_prefetch_bytes",
//       "num_failed_fetches", "stall_s",
//       "layers": [{"layer": number in the model,
//                   "states": a digit per expert: 0 absent, 1 being fetched, 2 in the pool,
//                             3 there and in use,
//                   "uses": [per expert], "hits": [...], "prefetches": [...], "counts": as above}]
//     }
//   }
import {Announcer} from './announcer.js';
import {onKeyNeeded, request} from './api.js';
import {Chat} from './chat.js';
import {byId} from './dom.js';
import {EngineView, stateText} from './engine.js';
import {ExpertsView} from './experts.js';
import {Live} from './live.js';
import {Settings} from './settings.js';

const kWide = matchMedia('(min-width: 960px)');
const kStateKinds = {
  ready: 'good', loading: 'busy', draining: 'busy', failed: 'bad',
};

/** Shows one view beside the chat; on a narrow screen, instead of it. */
function setUpViews() {
  const buttons = [...document.querySelectorAll('#views button')];
  const show = (name) => {
    document.body.dataset.view = name;
    for (const button of buttons) {
      const isShown = button.dataset.view === name;
      button.setAttribute('aria-current', isShown ? 'true' : 'false');
    }
  };
  const fit = () => {
    if (kWide.matches && document.body.dataset.view === 'chat') show('engine');
  };
  for (const button of buttons) button.addEventListener('click', () => show(button.dataset.view));
  kWide.addEventListener('change', fit);
  show('chat');
  fit();
}

function setUpTheme() {
  const button = byId('theme');
  const label = () => {
    byId('theme-choice').textContent = augurTheme.choice();
    button.ariaLabel = `Theme: ${augurTheme.choice()}`;
  };
  button.addEventListener('click', () => {
    augurTheme.next();
    label();
  });
  label();
}

/** Asks for the API key; resolves to null when the user goes without. */
function askForKey(isWrong) {
  const dialog = byId('key-dialog');
  const input = byId('key');
  byId('key-wrong').hidden = !isWrong;
  input.value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const key = input.value.trim();
      input.value = '';
      resolve(dialog.returnValue === 'use' && key !== '' ? key : null);
    }, {once: true});
  });
}

function setUpKeyDialog(retry) {
  const dialog = byId('key-dialog');
  byId('key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    dialog.close('use');
  });
  byId('key-cancel').addEventListener('click', () => dialog.close());
  byId('key-needed').addEventListener('click', retry);
  onKeyNeeded(askForKey);
}

function showConnection(live, announcer) {
  const {connection, stats} = live;
  const text = stateText(live);
  const mark = byId('state');
  const kind = connection === 'connected' ? kStateKinds[stats.state] : {lost: 'bad'}[connection];
  mark.dataset.kind = kind ?? 'busy';
  if (mark.textContent !== text) {
    mark.textContent = text;
    if (stats?.state !== 'loading') announcer.say(`Server: ${text}.`);
  }
  byId('key-needed').hidden = connection !== 'locked';
  const model = stats?.model ?? '';
  byId('model').textContent = model;
  document.title = model === '' ? 'Augur' : `${model} · Augur`;
}

async function firstModel(signal) {
  const models = await (await request('/v1/models', {signal})).json();
  return models.data[0].id;
}

function main() {
  const announcer = new Announcer();
  const settings = new Settings(() => showSettings());
  function showSettings() {
    const numSet = settings.numSet();
    byId('settings-note').textContent = numSet > 0 ? `${numSet} set` : '';
    const invalid = settings.invalidLabels();
    byId('settings-invalid').textContent =
        invalid.length > 0 ? `Not sent, out of range: ${invalid.join(', ')}.` : '';
  }
  showSettings();
  setUpViews();
  setUpTheme();
  const engine = new EngineView();
  const experts = new ExpertsView();
  let live = null;
  setUpKeyDialog(() => live.retry());
  live = new Live(() => {
    showConnection(live, announcer);
    engine.show(live);
    experts.show(live);
  });
  const modelName = async (signal) => live.stats?.model || firstModel(signal);
  new Chat({settings, announcer, modelName});
}

main();
