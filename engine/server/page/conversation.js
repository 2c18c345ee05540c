// A conversation as data, and how an answer is asked for. Nothing here touches the page.
//
// A conversation is a list of turns {mode, prompt, answer, state, error, figures}: mode 'chat' or
// 'completion'; state 'streaming', 'done', 'stopped' or 'failed'. A completion stands alone; a chat
// turn follows the chat turns before it that have an answer.
import {errorOf, ApiError, request} from './api.js';
import {readStored, writeStored} from './dom.js';
import {readEvents} from './sse.js';

const kStoreKey = 'augur.conversation';
const kMaxStoredChars = 1 << 20;

/** As kept for this tab; a turn that was under way when the page was left counts as stopped. */
export function loadTurns() {
  const turns = readStored('sessionStorage', kStoreKey);
  if (!Array.isArray(turns)) return [];
  const isTurn = (turn) => typeof turn?.prompt === 'string' && typeof turn.answer === 'string';
  return turns.filter(isTurn).map(
      (turn) => ({...turn, state: turn.state === 'streaming' ? 'stopped' : turn.state}));
}

export function storeTurns(turns) {
  const numChars = turns.reduce((sum, turn) => sum + turn.prompt.length + turn.answer.length, 0);
  const isKept = turns.length > 0 && numChars <= kMaxStoredChars;
  writeStored('sessionStorage', kStoreKey, isKept ? turns : null);
}

function chatMessages(turns, turn, systemPrompt) {
  const messages = [];
  if (systemPrompt.trim() !== '') messages.push({role: 'system', content: systemPrompt});
  for (const earlier of turns) {
    if (earlier === turn) break;
    if (earlier.mode !== 'chat' || earlier.answer === '') continue;
    messages.push({role: 'user', content: earlier.prompt});
    messages.push({role: 'assistant', content: earlier.answer});
  }
  messages.push({role: 'user', content: turn.prompt});
  return messages;
}

/** Where to send `turn`, and what. */
export function requestOf(turns, turn, {model, settings, systemPrompt}) {
  const common = {model, stream: true, stream_options: {include_usage: true}, ...settings};
  if (turn.mode === 'completion') {
    return {path: '/v1/completions', body: {...common, prompt: turn.prompt}};
  }
  const messages = chatMessages(turns, turn, systemPrompt);
  return {path: '/v1/chat/completions', body: {...common, messages}};
}

/**
 * Sends a request and yields {text}, {finishReason} and {usage} as they come. Throws ApiError for
 * an answer or an event that is an error, and for a stream that breaks off.
 */
export async function* streamAnswer({path, body}, signal) {
  const response = await request(path, {body, signal});
  let isWhole = false;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === '[DONE]') return;
      const event = parseEvent(data);
      if (event.error) throw errorOf(response.status, event);
      const choice = event.choices?.[0];
      const text = choice?.delta?.content ?? choice?.text;
      if (text) yield {text};
      if (choice?.finish_reason) {
        isWhole = true;
        yield {finishReason: choice.finish_reason};
      }
      if (event.usage) yield {usage: event.usage};
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError(0, 'The connection broke before the answer was complete.');
  }
  if (!isWhole) throw new ApiError(0, 'The server ended the answer before it was complete.');
}

function parseEvent(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError(0, 'The server sent an event that is not JSON.');
  }
}

/**
 * What an answer took, by the clock of this page: times in milliseconds from sending the request,
 * `usage` as the server counted, or null where it was not told.
 */
export function figuresOf({firstTextMs, lastTextMs, endMs, usage}) {
  const numTokens = usage?.completion_tokens ?? null;
  const decodeSeconds = (lastTextMs - firstTextMs) / 1000;
  return {
    firstTextSeconds: firstTextMs === null ? null : firstTextMs / 1000,
    totalSeconds: endMs / 1000,
    numTokens,
    numPromptTokens: usage?.prompt_tokens ?? null,
    numCachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? null,
    // The first token is the prompt's work.
    tokensPerSecond: numTokens > 1 && decodeSeconds > 0 ? (numTokens - 1) / decodeSeconds : null,
  };
}
