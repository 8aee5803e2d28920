/** The choice between light and dark: as the system has it, until somebody chooses. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";

const KEPT = "recommender.theme";

const kept = (): string | null => {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
};

const apply = (theme: string | null): void => {
  document.documentElement.style.colorScheme = theme ?? "light dark";
};

apply(kept());

/** A button that changes to the other theme. */
export const Theme = (): JSX.Element => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const [theme, setTheme] = useState(kept() ?? system);
  const next = theme === "dark" ? "light" : "dark";
  const choose = (): void => {
    setTheme(next);
    apply(next);
    try {
      localStorage.setItem(KEPT, next);
    } catch {
      // Without storage the choice holds for this page.
    }
  };
  return (
    <button type="button" class="theme" id="theme" aria-label={`Change to the ${next} theme`} onClick={choose}>
      {theme === "dark" ? "☀" : "☾"}
    </button>
  );
};
