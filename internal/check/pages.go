package check

import "context"

// checkPages checks the address at which the worker would serve health, metrics and the status page. A free
// address makes no finding.
func (r *run) checkPages(ctx context.Context) {
	served, err := r.Pages(ctx)
	r.alone = !served
	switch {
	case err != nil:
		r.add(Fail, Environment, "the worker could not serve its pages: "+err.Error(), "")
	case served:
		r.add(OK, Environment, "a worker of this environment runs: it answers at WXKEEPER_HTTP_ADDR", "")
	}
}
