package check

import "context"

// pages checks the address at which the worker would serve health, metrics and the status page. Where it is free, nothing
// is to be said.
func (r *run) pages(ctx context.Context) {
	served, err := r.Pages(ctx)
	r.alone = !served
	switch {
	case err != nil:
		r.say(Fail, Environment, "the worker could not serve its pages: "+err.Error(), "")
	case served:
		r.say(OK, Environment, "a worker of this environment runs: it answers at WXKEEPER_HTTP_ADDR", "")
	}
}
