// The colour scheme, chosen before anything is drawn: runs from <head>, and is no module for that.
//
// <html data-theme> is always "light" or "dark". Without a choice of the user's it follows the
// system's. `augurTheme` is what the button in the page's head calls.
'use strict';

globalThis.augurTheme = (() => {
  const kKey = 'augur.theme';
  const kChoices = ['auto', 'light', 'dark'];
  const system = matchMedia('(prefers-color-scheme: dark)');
  let choice = 'auto';
  try {
    choice = localStorage.getItem(kKey) ?? 'auto';
  } catch {
    // Storage is forbidden: the choice lasts as long as the page.
  }
  if (!kChoices.includes(choice)) choice = 'auto';

  function apply() {
    const isDark = choice === 'dark' || (choice === 'auto' && system.matches);
    document.documentElement.dataset.theme = isDark ? 'dark' : 'light';
    dispatchEvent(new Event('themechange'));
  }
  system.addEventListener('change', apply);
  apply();

  return {
    choice: () => choice,
    /** Goes on to the next choice. */
    next() {
      choice = kChoices[(kChoices.indexOf(choice) + 1) % kChoices.length];
      try {
        localStorage.setItem(kKey, choice);
      } catch {
        // As above.
      }
      apply();
    },
  };
})();
