// What the tests ask of JupyterLab's page, as `window.lab`; needs `--expose-app-in-browser`.
const app = window.jupyterapp;
let panel = null;

// A bar's element is gone when its loop is done: widths are noted as they change.
const widths = new Map();
new MutationObserver(changes => {
  for (const { target } of changes) {
    if (!target.classList?.contains('progress-bar')) continue;
    if (!widths.has(target)) widths.set(target, new Set());
    widths.get(target).add(target.style.width);
  }
}).observe(document.body, { attributes: true, attributeFilter: ['style'], subtree: true });

window.lab = {
  restored: () => app.restored,
  async open(path) {
    panel = await app.commands.execute('docmanager:open', { path, factory: 'Notebook' });
    await panel.revealed;
    await panel.sessionContext.ready;
    app.shell.activateById(panel.id);
    app.shell.collapseLeft();
    widths.clear();
  },
  // Not awaited: it ends with the last cell, and is watched meanwhile.
  runAll() { app.commands.execute('notebook:run-all-cells'); },
  state() {
    const cells = panel.content.widgets.map(w => w.model).filter(m => m.type === 'code');
    const errors = cells.flatMap(m => m.outputs.toJSON()).filter(o => o.output_type === 'error');
    return {
      kernel: panel.sessionContext.session?.kernel?.status,
      waiting: cells.filter(m => m.executionCount === null).length,
      running: cells.filter(m => m.executionState === 'running').length,
      errors: errors.map(e => [`${e.ename}: ${e.evalue}`, ...e.traceback].join('\n')),
    };
  },
  bars: () => [...widths.values()].map(seen => seen.size),
  async save() { await app.commands.execute('docmanager:save'); },
  height: () => panel.node.querySelector('.jp-WindowedPanel-inner').scrollHeight,
  scrollToTop() { panel.node.querySelector('.jp-WindowedPanel-outer').scrollTop = 0; },
  async close() {
    await panel.sessionContext.shutdown();
    panel.dispose();
  },
};
