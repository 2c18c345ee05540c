// Requests to the server this page came from, with the API key where one is needed.
//
// The key is kept for this tab only (sessionStorage). The first answer 401 asks the user for it;
// requests that meet 401 at the same time wait for the same answer and are sent again with it.
import {readStored, writeStored} from './dom.js';

const kKeyName = 'augur.key';
let key = readStored('sessionStorage', kKeyName);
let askForKey = async () => null;
let asking = null;

/** What a server said no with; status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** `ask(isWrong)` resolves to a key, or to null when the user has none to give. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

function newKey(usedKey) {
  if (key !== usedKey) return Promise.resolve(key);  // given while this request was under way
  asking ??= askForKey(usedKey !== null).then((given) => {
    if (given !== null) {
      key = given;
      writeStored('sessionStorage', kKeyName, key);
    }
    return given;
  }).finally(() => {
    asking = null;
  });
  return asking;
}

/** From the body of an answer, or an event of a stream, that is an error. */
export function errorOf(status, body) {
  const error = body?.error;
  if (typeof error === 'string') return new ApiError(status, error);
  return new ApiError(status, error?.message ?? `The server answered ${status}.`, error?.code);
}

async function failure(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not JSON: the status has to do.
  }
  const error = errorOf(response.status, body);
  const retryAfter = response.headers.get('retry-after');
  if (retryAfter !== null) error.message += ` Try again in ${retryAfter} s.`;
  return error;
}

/**
 * Sends a request; `body` is sent as JSON. Resolves to the response when its status is 2xx, and
 * throws ApiError otherwise, or AbortError after `signal`. `mayAsk`: whether 401 asks the user.
 */
export async function request(path, {body, signal, mayAsk = true} = {}) {
  for (;;) {
    const usedKey = key;
    const headers = usedKey === null ? {} : {Authorization: `Bearer ${usedKey}`};
    const options = {headers, signal, cache: 'no-store', credentials: 'omit'};
    if (body !== undefined) {
      options.method = 'POST';
      options.body = JSON.stringify(body);
      headers['Content-Type'] = 'application/json';
    }
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, 'The server cannot be reached.');
    }
    if (response.ok) return response;
    if (response.status !== 401 || !mayAsk) throw await failure(response);
    if (await newKey(usedKey) === null) throw await failure(response);
    signal?.throwIfAborted();
  }
}
