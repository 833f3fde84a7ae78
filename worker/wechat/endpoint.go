package wechat

// Endpoint names an interface of WeChat. It is a metric label and a log key.
type Endpoint string

// The interfaces that this client calls. Each has a section in docs/wechat-api.md.
const (
	EndpointToken        Endpoint = "token"             // GET /cgi-bin/token
	EndpointStableToken  Endpoint = "stable_token"      // POST /cgi-bin/stable_token
	EndpointTicket       Endpoint = "getticket"         // GET /cgi-bin/ticket/getticket
	EndpointTicketToCode Endpoint = "tickettocode"      // POST /intp/marketcode/tickettocode
	EndpointAPIDomainIP  Endpoint = "get_api_domain_ip" // GET /cgi-bin/get_api_domain_ip
)

// takesSecret reports whether a request to e carries the AppSecret and not an access_token. It selects the
// column of the table of errcodes.
func (e Endpoint) takesSecret() bool { return e == EndpointToken || e == EndpointStableToken }

// TicketType is the type parameter of getticket.
type TicketType string

// The types of ticket (docs/wechat-api.md#getticket).
const (
	TicketJSAPI  TicketType = "jsapi"   // signs pages for the JS-SDK
	TicketWXCard TicketType = "wx_card" // signs cards and vouchers
)
