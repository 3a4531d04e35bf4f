// What a snapshot gives to its sink, against a plain map of the keyspace at the cut.

#include "src/keyspace/snapshot.h"

#include <gtest/gtest.h>
