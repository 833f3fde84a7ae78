package wechat

// Endpoint names an interface of WeChat. It is a metric label and a log key.
type Endpoint string

// The interfaces that this client calls.
const (
	EndpointToken        Endpoint = "token"             // GET /cgi-bin/token (getaccesstoken.txt)
	EndpointStableToken  Endpoint = "stable_token"      // POST /cgi-bin/stable_token (wechat-api.md 1.2)
	EndpointTicket       Endpoint = "getticket"         // GET /cgi-bin/ticket/getticket (getticket.txt)
	EndpointTicketToCode Endpoint = "tickettocode"      // POST /intp/marketcode/tickettocode (tickettocode.txt)
	EndpointAPIDomainIP  Endpoint = "get_api_domain_ip" // GET /cgi-bin/get_api_domain_ip (wechat-api.md 1.6)
)

// Endpoints are all of them.
var Endpoints = [...]Endpoint{EndpointToken, EndpointStableToken, EndpointTicket, EndpointTicketToCode, EndpointAPIDomainIP}

// takesSecret reports whether the AppSecret is shown there, not an access_token: the endpoint class of the errcode table.
func (e Endpoint) takesSecret() bool { return e == EndpointToken || e == EndpointStableToken }

// issues reports whether an answer of e carries a credential, so that its excerpts need more than the usual mask.
func (e Endpoint) issues() bool { return e.takesSecret() || e == EndpointTicket }

// TicketType is the type parameter of getticket.
type TicketType string

// The types of ticket (getticket.txt).
const (
	TicketJSAPI  TicketType = "jsapi"   // signs pages for the JS-SDK
	TicketWXCard TicketType = "wx_card" // signs cards and vouchers
)
