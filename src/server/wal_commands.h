// WAL: what an operator may ask of the log while the server runs. The rows are in wal_commands.cc;
// what some of them wait for is asked by the session whenever the log has moved.
#pragma once

#include "resp/reply.h"
#include "src/commands/client.h"

namespace crab {

class Server;

// Answers a client that waits for WAL FLUSH, ROTATE or BACKUP. False: not yet. Any loop, IN.
bool AnswerWalWait(Server& server, Client::DurableWait& wait, resp::Reply& reply);

}  // namespace crab
