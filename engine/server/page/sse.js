// Server-sent events out of a response's body (WHATWG HTML, "Parsing an event stream").
//
// Only the data of an event is of use here: names, ids and retry times are read over.

/** Takes text in pieces cut anywhere; returns the data of the events that each piece completes. */
export class EventParser {
  #rest = '';
  #data = [];

  feed(text) {
    const events = [];
    // A carriage return at the very end may be the first half of a line break.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?=[^])/);
    this.#rest = lines.pop();
    for (const line of lines) this.#takeLine(line, events);
    return events;
  }

  #takeLine(line, events) {
    if (line === '') {
      if (this.#data.length > 0) events.push(this.#data.join('\n'));
      this.#data = [];
    } else if (line === 'data') {
      this.#data.push('');
    } else if (line.startsWith('data:')) {
      this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
    }
  }
}

/** The data of each event of `body`, a ReadableStream of bytes, as it comes. */
export async function* readEvents(body) {
  const parser = new EventParser();
  const decoder = new TextDecoder();  // keeps the halves of a character that was cut
  const reader = body.getReader();
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      yield* parser.feed(decoder.decode(value, {stream: true}));
    }
  } finally {
    // Left early: the server is to know that nobody reads on. How that goes matters no more.
    reader.cancel().catch(() => {});
  }
}
