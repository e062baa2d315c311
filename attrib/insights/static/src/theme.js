/** Light or dark: what the notebook says, else what the system says. */

/** @param {HTMLElement} element @param {AbortSignal} signal */
export function followTheme(element, signal) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    element.dataset.theme = hostTheme() ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply, { signal });
  const watch = new MutationObserver(apply);
  watch.observe(document.body, {
    attributes: true,
    attributeFilter: ["class", "data-jp-theme-light", "data-vscode-theme-kind"],
  });
  signal.addEventListener("abort", () => watch.disconnect());
}

/** JupyterLab and VS Code mark the body. @returns {"light" | "dark" | null} */
function hostTheme() {
  const { dataset, classList } = document.body;
  if (dataset.jpThemeLight !== undefined)
    return dataset.jpThemeLight === "false" ? "dark" : "light";
  if (classList.contains("vscode-light") || classList.contains("vscode-high-contrast-light"))
    return "light";
  return classList.contains("vscode-dark") || classList.contains("vscode-high-contrast")
    ? "dark"
    : null;
}
